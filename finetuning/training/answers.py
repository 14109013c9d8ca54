"""Lets a model in training answer fixed prompts, to be read by people, and says whether its answers end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from finetuning.training.events import Answer, ShouldStop, never
from finetuning.training.rendering import ChatRenderer, Message


@torch.no_grad()
def write_answers(
    model: Any,
    renderer: ChatRenderer,
    prompts: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int = 64,
    should_stop: ShouldStop = never,
) -> list[Answer]:
    """Greedy, so that answers of two steps differ by training alone. `has_stopped`: it ended with a stop token.

    `should_stop` is asked before every token: what is left out then is missing in the result.
    """
    was_training = model.training
    model.eval()
    answers = [_answer(model, renderer, prompt, max_new_tokens, should_stop) for prompt in prompts if not should_stop()]
    model.train(was_training)
    return answers


def stop_rate(answers: Sequence[Answer]) -> float:
    return sum(answer.has_stopped for answer in answers) / len(answers) if answers else 0.0


def _answer(
    model: Any, renderer: ChatRenderer, prompt: Sequence[Message], max_new_tokens: int, should_stop: ShouldStop
) -> Answer:
    ids = torch.tensor([renderer.render_prompt(prompt)], device=model.device)
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        # The base's config may name sampling options, which a greedy answer would be warned about.
        temperature=None,
        top_p=None,
        top_k=None,
        max_new_tokens=max_new_tokens,
        stopping_criteria=[lambda ids, _scores, **_: torch.full((len(ids),), should_stop(), device=ids.device)],
        eos_token_id=sorted(renderer.stop_token_ids),
        pad_token_id=min(renderer.stop_token_ids),
    )
    written = output[0, ids.shape[1] :].tolist()
    text = renderer.tokenizer.decode(written, skip_special_tokens=True)
    has_stopped = bool(written) and written[-1] in renderer.stop_token_ids
    return Answer(prompt=prompt[-1]["content"], text=text, has_stopped=has_stopped, tokens=len(written))
