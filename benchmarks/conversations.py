"""Conversations to train on: long, made of a few phrases, the same at every run."""

from __future__ import annotations

import random

PHRASES = (
    "the harbour lies quiet before morning",
    "one boat after another comes home with fish",
    "gulls wait on the wall",
    "a baker opens his door to let the warm air out",
    "people stop and talk about the weather",
    "nobody knows yet what the day will bring",
    "the old clock strikes seven",
    "a dog sleeps under the table",
)


def sentence(source: random.Random) -> str:
    return ", and ".join(source.sample(PHRASES, 2)).capitalize() + ". "


def conversation(number: int) -> list[dict[str, str]]:
    """A question of a few sentences and a long answer: more than any workload's tokens together."""
    source = random.Random(number)
    question = "".join(sentence(source) for _ in range(1 + number % 2))
    answer = "".join(sentence(source) for _ in range(20))
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
