"""Lets a model answer fixed prompts, to be read by people, and says whether its answers end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from finetuning.training.batching import split_by_length
from finetuning.training.events import Answer, ShouldStop, never
from finetuning.training.rendering import ChatRenderer, Message

AT_ONCE = 8


@torch.no_grad()
def write_answers(
    model: Any,
    renderer: ChatRenderer,
    prompts: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int = 64,
    batch_size: int = AT_ONCE,
    should_stop: ShouldStop = never,
) -> list[Answer]:
    """Greedy, so that answers of two steps differ by training alone. `has_stopped`: it ended with a stop token.

    At most `batch_size` are written at once, and `AT_ONCE`. `should_stop` is asked before every token: then the answers
    are what they are by then.
    """
    was_training = model.training
    model.eval()
    ids = [renderer.render_prompt(prompt) for prompt in prompts]
    written: list[list[int]] = [[] for _ in prompts]
    for rows in split_by_length(range(len(ids)), [len(prompt) for prompt in ids], batch_size=min(batch_size, AT_ONCE)):
        tokens = _continue(model, renderer, [ids[row] for row in rows], max_new_tokens, should_stop)
        for row, row_tokens in zip(rows, tokens, strict=True):
            written[row] = row_tokens
    model.train(was_training)
    return [_answer(renderer, prompt, tokens) for prompt, tokens in zip(prompts, written, strict=True)]


def stop_rate(answers: Sequence[Answer]) -> float:
    return sum(answer.has_stopped for answer in answers) / len(answers) if answers else 0.0


def _continue(
    model: Any, renderer: ChatRenderer, prompts: Sequence[list[int]], max_new_tokens: int, should_stop: ShouldStop
) -> list[list[int]]:
    """What follows each prompt, its stop token included. Prompts are padded on the left, and the padding is masked."""
    width, pad = max(map(len, prompts)), min(renderer.stop_token_ids)
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        # The base's config may name sampling options, which a greedy answer would be warned about.
        temperature=None,
        top_p=None,
        top_k=None,
        max_new_tokens=max_new_tokens,
        stopping_criteria=[lambda ids, _scores, **_: torch.full((len(ids),), should_stop(), device=ids.device)],
        eos_token_id=sorted(renderer.stop_token_ids),
        pad_token_id=pad,
    )
    return [_through_stop(row, renderer.stop_token_ids) for row in output[:, width:].tolist()]


def _through_stop(tokens: list[int], stops: frozenset[int]) -> list[int]:
    end = next((position for position, token in enumerate(tokens) if token in stops), len(tokens))
    return tokens[: end + 1]


def _answer(renderer: ChatRenderer, prompt: Sequence[Message], written: list[int]) -> Answer:
    text = renderer.tokenizer.decode(written, skip_special_tokens=True)
    has_stopped = bool(written) and written[-1] in renderer.stop_token_ids
    return Answer(prompt=prompt[-1]["content"], text=text, has_stopped=has_stopped, tokens=len(written))
