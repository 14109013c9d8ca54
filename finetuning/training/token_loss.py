"""The loss of a causal model on its trained tokens only: the vocabulary projection runs for those positions alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from finetuning.training.rendering import TrainingSequence


@dataclass(frozen=True)
class TokenBatch:
    """`input_ids` [rows, tokens] padded on the right; `predicts` [rows, tokens - 1]: is the next token trained?

    There is no attention mask: in a causal model nothing attends to the padding behind it, and without a mask
    the fastest attention kernel can be used.
    """

    input_ids: torch.Tensor
    predicts: torch.Tensor

    @property
    def targets(self) -> torch.Tensor:
        return self.input_ids[:, 1:][self.predicts]


def collate(sequences: Sequence[TrainingSequence], *, pad_token_id: int, device: str = "cpu") -> TokenBatch:
    """Padding is known by length, never by id: a pad token that is the stop token too stays trained."""
    width = max(map(len, sequences))
    ids = np.full((len(sequences), width), pad_token_id, dtype=np.int64)
    trained = np.zeros((len(sequences), width), dtype=bool)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence.input_ids
        trained[row, : len(sequence)] = sequence.is_trained
    return TokenBatch(torch.from_numpy(ids).to(device), torch.from_numpy(trained[:, 1:]).to(device))


def summed_loss(model: Any, batch: TokenBatch) -> torch.Tensor:
    """Cross entropy summed over the trained tokens, in float32. Divide by the tokens of the whole step."""
    return functional.cross_entropy(trained_logits(model, batch).float(), batch.targets, reduction="sum")


def token_log_probabilities(model: Any, batch: TokenBatch) -> torch.Tensor:
    """The log probability of all trained tokens of each row [rows], as preference methods need it."""
    losses = functional.cross_entropy(trained_logits(model, batch).float(), batch.targets, reduction="none")
    rows = batch.predicts.nonzero()[:, 0]
    return torch.zeros(len(batch.input_ids), device=losses.device).index_add(0, rows, -losses)


def trained_logits(model: Any, batch: TokenBatch) -> torch.Tensor:
    """The logits [trained tokens, vocabulary] at the positions whose next token is trained."""
    mask = functional.pad(batch.predicts, (0, 1))
    head = model.get_output_embeddings()
    with only_positions(head, mask):
        logits = model(input_ids=batch.input_ids, use_cache=False).logits
    return logits[0] if isinstance(head, nn.Module) else logits[mask]


@contextmanager
def only_positions(head: Any, mask: torch.Tensor) -> Iterator[None]:
    """Hands the head the positions of `mask` [rows, tokens] only, as one row.

    Scaling or capping that a model does behind its head still happens.
    """
    if not isinstance(head, nn.Module):
        yield
        return
    handle = head.register_forward_pre_hook(lambda _module, inputs: (inputs[0][mask].unsqueeze(0), *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()
