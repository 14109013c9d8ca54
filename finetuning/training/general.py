"""A small set of general texts of our own: a tuned model that finds them much harder than its base has forgotten."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from finetuning.training.errors import ConversationError
from finetuning.training.rendering import ChatRenderer, Message, TrainingSequence

FILE = Path(__file__).with_name("general_texts.json")


@dataclass(frozen=True)
class GeneralTexts:
    """`prompts` are asked of every model, to be read by people."""

    sentences: list[str]
    conversations: list[list[Message]]
    prompts: list[list[Message]]


@cache
def load_general_texts() -> GeneralTexts:
    values: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return GeneralTexts(
        sentences=values["sentences"],
        conversations=[
            [{"role": "user", "content": pair["question"]}, {"role": "assistant", "content": pair["answer"]}]
            for pair in values["answers"]
        ],
        prompts=[[{"role": "user", "content": prompt}] for prompt in values["prompts"]],
    )


def general_sequences(renderer: ChatRenderer) -> tuple[list[TrainingSequence], list[TrainingSequence]]:
    """Sentences, judged on every token, and conversations, judged on their answers (not those a template refuses)."""
    texts = load_general_texts()
    sentences = [_plain(renderer.tokenizer(sentence)["input_ids"]) for sentence in texts.sentences]
    answered = []
    for conversation in texts.conversations:
        try:
            answered.extend(renderer.render(conversation))
        except ConversationError:
            continue
    return [sentence for sentence in sentences if sentence.trained_tokens], answered


def _plain(ids: list[int]) -> TrainingSequence:
    is_judged = np.ones(len(ids), dtype=bool)
    is_judged[:1] = False  # nothing stands before it from which it could be predicted
    return TrainingSequence(np.asarray(ids, dtype=np.int32), is_judged)
