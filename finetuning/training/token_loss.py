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

# Numbers of one part of the logits: what a core's caches hold, or what keeps a GPU busy.
PART_NUMBERS = {"cpu": 4 << 20, "cuda": 64 << 20}


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


class CrossEntropy(torch.autograd.Function):
    """The loss of each token [tokens], in float32, from logits [tokens, vocabulary] of any format.

    Computed for some tokens at a time: PyTorch's own makes three float32 copies of all logits, which is most of the
    memory of a step with a small model and a large vocabulary.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses = torch.empty(len(targets), dtype=torch.float32, device=logits.device)
        totals = torch.empty_like(losses)
        for part in _parts(logits):
            numbers = logits[part].float()
            totals[part] = numbers.logsumexp(dim=1)
            losses[part] = totals[part] - numbers.gather(1, targets[part, None])[:, 0]
        ctx.save_for_backward(logits, targets, totals)
        return losses

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, targets, totals = ctx.saved_tensors
        result = torch.empty_like(logits)
        for part in _parts(logits):
            shares = logits[part].float().sub_(totals[part, None]).exp_()
            shares.scatter_add_(1, targets[part, None], -torch.ones_like(totals[part, None]))
            result[part] = shares.mul_(gradient[part, None])
        return result, None


def summed_loss(model: Any, batch: TokenBatch) -> torch.Tensor:
    """Cross entropy summed over the trained tokens, in float32. Divide by the tokens of the whole step."""
    return CrossEntropy.apply(trained_logits(model, batch), batch.targets).sum()


def token_log_probabilities(model: Any, batch: TokenBatch) -> torch.Tensor:
    """The log probability of all trained tokens of each row [rows], as preference methods need it."""
    losses = CrossEntropy.apply(trained_logits(model, batch), batch.targets)
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


def _parts(logits: torch.Tensor) -> Iterator[slice]:
    tokens, vocabulary = logits.shape
    size = max(1, PART_NUMBERS.get(logits.device.type, PART_NUMBERS["cuda"]) // vocabulary)
    return (slice(start, start + size) for start in range(0, tokens, size))
