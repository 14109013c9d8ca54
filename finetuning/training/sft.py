"""Supervised fine-tuning of any causal model on conversations: LoRA or all weights, loss on the answers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetuning.training.batching import split_by_length
from finetuning.training.causal import attach_lora, causal_identity, data_digest, load_causal, train_causal
from finetuning.training.errors import DataError
from finetuning.training.hyperparameters import Hyperparameters, Method
from finetuning.training.labels import PreparationReport, Prepared, prepare_conversations
from finetuning.training.loop import Evaluation, TrainingResult
from finetuning.training.rendering import ChatRenderer, Message, TrainingSequence
from finetuning.training.runs import Run, RunOptions
from finetuning.training.token_loss import collate, summed_loss


@dataclass(frozen=True, kw_only=True)
class CausalOutcome:
    """`folders` is empty for a stopped run. `held_out` is None when there were no held-out rows."""

    result: TrainingResult
    training: PreparationReport
    held_out: PreparationReport | None
    folders: dict[str, Path]
    template_hash: str


@dataclass(frozen=True, kw_only=True)
class PreparedSft:
    """Ready to be trained, or to be looked at first. `held_out` is None when there were no held-out rows."""

    run: Run
    renderer: ChatRenderer
    training: Prepared
    held_out: Prepared | None


class SftObjective:
    """Cross entropy on trained tokens; held-out loss and perplexity."""

    def __init__(
        self,
        model: Any,
        sequences: Sequence[TrainingSequence],
        *,
        held_out: Sequence[TrainingSequence] = (),
        pad_token_id: int,
        eval_batch_size: int,
    ) -> None:
        self.lengths = [len(sequence) for sequence in sequences]
        self.evaluation_tokens = sum(map(len, held_out))
        self._model = model
        self._sequences = sequences
        self._held_out = held_out
        self._pad_token_id = pad_token_id
        self._eval_batch_size = eval_batch_size

    def prepare(self, check: Callable[[], None]) -> None:
        """There is nothing to prepare."""

    def begin_step(self, batches: Sequence[Sequence[int]], check: Callable[[], None]) -> None:
        """A batch's loss depends on nothing but the batch."""

    def units(self, rows: Sequence[int]) -> int:
        return sum(self._sequences[row].trained_tokens for row in rows)

    def loss(self, rows: Sequence[int]) -> torch.Tensor:
        return self._loss(self._sequences, rows)

    def evaluate(self, check: Callable[[], None]) -> Evaluation | None:
        if not self._held_out:
            return None
        lengths = [len(sequence) for sequence in self._held_out]
        total = 0.0
        for rows in split_by_length(range(len(lengths)), lengths, batch_size=self._eval_batch_size):
            check()
            total += self._loss(self._held_out, rows).item()
        loss = total / sum(sequence.trained_tokens for sequence in self._held_out)
        return Evaluation({"eval_loss": loss, "perplexity": math.exp(min(loss, 50.0))}, score=loss)

    def _loss(self, sequences: Sequence[TrainingSequence], rows: Sequence[int]) -> torch.Tensor:
        batch = collate(
            [sequences[row] for row in rows], pad_token_id=self._pad_token_id, device=str(self._model.device)
        )
        return summed_loss(self._model, batch)


def prepare_sft(
    base_folder: Path,
    conversations: Iterable[Sequence[Message]],
    *,
    options: RunOptions,
    hyperparameters: Hyperparameters,
    held_out: Iterable[Sequence[Message]] = (),
    method: Method = Method.LORA_SFT,
    adapter: Path | None = None,
) -> PreparedSft:
    """Load the base and render all conversations. Raises what `errors.py` names, or `StopRequested`."""
    base, renderer = load_causal(base_folder, options)
    window, progress = base.context_window, lambda _rows: options.check()
    training = prepare_conversations(
        conversations, renderer, context_window=window, max_length=hyperparameters.max_length, progress=progress
    )
    held = _prepare_held_out(
        list(held_out), renderer, context_window=window, max_length=training.report.max_length, progress=progress
    )
    model = attach_lora(base, hyperparameters, adapter=adapter) if method is Method.LORA_SFT else base.model
    objective = SftObjective(
        model,
        training.sequences,
        held_out=held.sequences if held else (),
        pad_token_id=base.pad_token_id,
        eval_batch_size=hyperparameters.per_device_eval_batch_size,
    )
    run = Run(
        method=method,
        model=model,
        objective=objective,
        base=base,
        hyperparameters=hyperparameters,
        data=data_digest([*training.sequences, *(held.sequences if held else ())]),
        identity=causal_identity(renderer, adapter),
    )
    return PreparedSft(run=run, renderer=renderer, training=training, held_out=held)


def _prepare_held_out(
    conversations: Sequence[Sequence[Message]], renderer: ChatRenderer, **how: Any
) -> Prepared | None:
    """A run goes on without them where none can be used: then the report alone says why."""
    if not conversations:
        return None
    try:
        return prepare_conversations(conversations, renderer, **how)
    except DataError as error:
        return Prepared([], [], error.details["report"])


def train_sft(
    base_folder: Path,
    conversations: Iterable[Sequence[Message]],
    *,
    options: RunOptions,
    hyperparameters: Hyperparameters,
    held_out: Iterable[Sequence[Message]] = (),
    method: Method = Method.LORA_SFT,
    adapter: Path | None = None,
) -> CausalOutcome:
    """Train, keep the best weights, save them. `adapter` goes on with an earlier adapter of the same base.

    Blocks for as long as it takes; `options.should_stop` is asked between batches. Raises what `errors.py` names.
    """
    prepared = prepare_sft(
        base_folder,
        conversations,
        options=options,
        hyperparameters=hyperparameters,
        held_out=held_out,
        method=method,
        adapter=adapter,
    )
    result, folders = train_causal(prepared.run, prepared.renderer, options)
    return CausalOutcome(
        result=result,
        training=prepared.training.report,
        held_out=prepared.held_out.report if prepared.held_out else None,
        folders=folders,
        template_hash=prepared.renderer.template_hash,
    )
