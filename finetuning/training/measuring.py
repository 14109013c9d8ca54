"""Tries the hardest work of a run before it begins: one update on the longest batch, and one evaluation batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from finetuning.training.batching import BatchOrder
from finetuning.training.events import Phase
from finetuning.training.loop import EVALUATION_COST
from finetuning.training.memory import explained, peak_memory_bytes
from finetuning.training.optimization import build_optimizer
from finetuning.training.precision import Precision
from finetuning.training.runs import Run, RunOptions, settle_precision

TYPICAL_BATCHES = 2


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """`seconds` is the estimate for the whole run; memory is the peak of the process (of the device on a GPU)."""

    seconds: float
    peak_memory_bytes: int
    longest_row: int
    longest_batch_seconds: float
    evaluation_batch_seconds: float
    total_steps: int
    device: str
    precision: str


class _OneBatchDone(Exception):
    """Unwinds from an evaluation after its first batch, which is its longest."""


def measure(run: Run, options: RunOptions, *, processes: int = 1) -> Measurement:
    """For so many processes. Changes the weights: train another run. Raises `TrainingMemoryError`, `StopRequested`."""
    options.progress(Phase(name="measuring"))
    values, lengths = run.hyperparameters, run.objective.lengths
    precision = settle_precision(run, asked=values.precision)
    order = BatchOrder(
        lengths,
        batch_size=values.per_device_train_batch_size,
        accumulation_steps=values.gradient_accumulation_steps * processes,
        seed=values.seed,
    )
    steps = values.max_steps or values.num_train_epochs * order.steps_per_epoch
    longest = order.longest_batch()
    with explained(values):
        _one_batch(run, precision, run.objective.prepare)
        options.check()
        longest_seconds = _timed(lambda: _update(run, precision, longest))
        options.check()
        evaluation_seconds = _timed(lambda: _one_batch(run, precision, run.objective.evaluate))
        options.check()
        typical = order.batches(order.steps_per_epoch // 2)[:TYPICAL_BATCHES]
        padded = sum(len(rows) * max(lengths[row] for row in rows) for rows in typical)
        typical_seconds = sum(_timed(partial(_backward, run, precision, rows)) for rows in typical)
    return Measurement(
        seconds=typical_seconds / padded * _tokens(run, order, steps, processes),
        peak_memory_bytes=peak_memory_bytes(),
        longest_row=max(lengths[row] for row in longest),
        longest_batch_seconds=longest_seconds,
        evaluation_batch_seconds=evaluation_seconds,
        total_steps=steps,
        device=precision.device,
        precision=precision.name,
    )


def _tokens(run: Run, order: BatchOrder, steps: int, processes: int) -> float:
    """What one process works on in the whole run, in tokens of a training step. Each evaluates everything."""
    every = run.hyperparameters.eval_steps or order.steps_per_epoch
    evaluations = 1 + -(-steps // every)
    return order.padded_tokens(steps) / processes + evaluations * EVALUATION_COST * run.objective.evaluation_tokens


def _update(run: Run, precision: Precision, rows: list[int]) -> None:
    """With the optimizer's moments, which come with the first update and stay."""
    optimizer = build_optimizer(run.model, run.hyperparameters)
    _backward(run, precision, rows)
    optimizer.step()
    optimizer.zero_grad()


def _backward(run: Run, precision: Precision, rows: list[int]) -> None:
    run.model.train()
    with precision.autocast():
        run.objective.begin_step([rows], lambda: None)
        loss = run.objective.loss(rows) / run.objective.units(rows)
    loss.backward()


@torch.no_grad()
def _one_batch(run: Run, precision: Precision, work: Callable[[Callable[[], None]], Any]) -> None:
    asked = iter((False,))

    def check() -> None:
        if next(asked, True):
            raise _OneBatchDone

    run.model.eval()
    with explained(run.hyperparameters, is_evaluation=True), suppress(_OneBatchDone), precision.autocast():
        work(check)


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - started
