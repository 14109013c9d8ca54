"""Draws the next tokens of a batch, each row by its own temperature, top_p and seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from transformers import LogitsProcessorList
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)

from models_hub.engine.formats import Sampling

# The likeliest tokens almost always hold the mass of top_p; sorting a whole vocabulary costs milliseconds a row.
FIRST_LOOK = 256
# Below this, dividing by the temperature only loses digits: the likeliest token it is.
COLDEST = 1e-3


class SamplingProcessor(ContinuousBatchingLogitsProcessor):
    """Marks the drawn token of each sampled row as its greatest, for the greedy batch loop to take.

    The library's own per-request processors sort every row's whole vocabulary twice, greedy ones too (139 instead of
    193 tokens a second with 32 streams of SmolLM2 on two cores), and know no seed. Works in the loop's synchronous mode
    only: the rows of `prepare_tensor_args` are those of the next call.
    """

    supported_kwargs = {"sampling": Sampling}
    ignored_kwargs = ()

    def __init__(self, before_step: Callable[[], None]) -> None:
        """`before_step` is called in the loop's thread, once for each batch that makes tokens."""
        self._before_step = before_step
        self._rows: list[tuple[int, Sampling, int]] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        self._before_step()
        self._rows = []
        for row, request in enumerate(requests_with_new_token):
            state = request.state
            sampling = state.logit_processor_kwargs.get("sampling")
            if sampling is not None and sampling.temperature >= COLDEST:
                # Counted from the start of the prompt: the same after the loop had to requeue the request.
                position = len(state.initial_tokens) + len(state.generated_tokens)
                self._rows.append((row, sampling, position))
        return torch.zeros(len(requests_with_new_token), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        for row, sampling, position in self._rows:
            scores[row, draw_token(scores[row], sampling, position)] = torch.inf
        return scores


def draw_token(logits: torch.Tensor, sampling: Sampling, position: int) -> int:
    """One token id from logits of shape (vocabulary,): temperature first, then the smallest set that holds top_p."""
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    seeded = sampling.seed is not None
    chance = random.Random(f"{sampling.seed}:{position}").random() if seeded else random.random()  # noqa: S311
    if sampling.top_p >= 1.0:
        return _pick(probabilities, chance)
    values, ids = _nucleus(probabilities, sampling.top_p)
    return int(ids[_pick(values, chance)])


def _nucleus(probabilities: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    values, ids = torch.topk(probabilities, min(FIRST_LOOK, probabilities.numel()))
    if float(values.sum()) < top_p:
        values, ids = torch.sort(probabilities, descending=True)
    before = values.cumsum(0) - values
    kept = max(1, int((before < top_p).sum()))
    return values[:kept], ids[:kept]


def _pick(probabilities: torch.Tensor, chance: float) -> int:
    cumulative = probabilities.cumsum(0, dtype=torch.float64)
    index = int(torch.searchsorted(cumulative, chance * cumulative[-1]))
    return min(index, probabilities.numel() - 1)


def build_processors(before_step: Callable[[], None]) -> ContinuousBatchingLogitsProcessorList:
    """What takes the place of a batching manager's `logit_processor` before it starts."""
    processors = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([SamplingProcessor(before_step)]))
    # The list counts only processors it converted itself; ours needs its row of arguments too.
    processors.tensors_required = 1
    return processors
