"""The training loop of all methods: accumulation, clipping, evaluation, early stopping, checkpoints, stop and resume.

Every step starts from a seed of its own, so an interrupted and resumed run computes what an uninterrupted one does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from finetuning.training.batching import BatchOrder
from finetuning.training.checkpoints import CheckpointStore, LoopState
from finetuning.training.errors import DivergedError, StopRequested
from finetuning.training.events import (
    CheckpointSaved,
    EvaluationDone,
    Phase,
    Progress,
    ShouldStop,
    Started,
    StepDone,
    WarmUpDone,
    ignore,
    never,
)
from finetuning.training.hyperparameters import Hyperparameters
from finetuning.training.memory import explained, peak_memory_bytes
from finetuning.training.optimization import build_optimizer, learning_rate_at
from finetuning.training.parallel import current
from finetuning.training.precision import Precision

# A backward pass costs about twice a forward pass.
EVALUATION_COST = 1 / 3
# Apart by more than a run has steps: dropout in one process is not that of another.
RANK_SEED = 1_000_000_007


@dataclass(frozen=True)
class Evaluation:
    """`score` decides which checkpoint is best: lower is better."""

    metrics: dict[str, Any]
    score: float


class Objective(Protocol):
    """What is trained. Rows are numbers from 0; `lengths[row]` is its tokens."""

    @property
    def lengths(self) -> Sequence[int]: ...

    @property
    def evaluation_tokens(self) -> int: ...

    def prepare(self, check: Callable[[], None]) -> None:
        """Called once with the weights the run began with: before the first step, before a checkpoint is loaded."""

    def begin_step(self, batches: Sequence[Sequence[int]], check: Callable[[], None]) -> None:
        """Called with all batches of a step, those of other processes too, before the first `loss` of any of them."""

    def units(self, rows: Sequence[int]) -> int:
        """What the step's loss is divided by: trained tokens, or rows."""

    def loss(self, rows: Sequence[int]) -> torch.Tensor:
        """The loss summed over the units of one batch, with its graph."""

    def evaluate(self, check: Callable[[], None]) -> Evaluation | None:
        """On held-out rows; None when there are none. Calls `check` between batches, which may raise."""


@dataclass(frozen=True)
class TrainingResult:
    """`status` is completed, early_stopped or stopped (a checkpoint waits). The model holds the best weights."""

    status: str
    step: int
    total_steps: int
    best_step: int
    train_loss: float
    tokens: int
    seconds: float
    precision: str
    evaluations: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class TrainingLoop:
    """One run over one model. Call `run` once. Raises what `errors.py` names."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        *,
        hyperparameters: Hyperparameters,
        precision: Precision,
        store: CheckpointStore,
        progress: Progress = ignore,
        should_stop: ShouldStop = never,
        on_evaluation: Callable[[int], None] | None = None,
    ) -> None:
        self._model = model
        self._objective = objective
        self._values = hyperparameters
        self._precision = precision
        self._store = store
        self._progress = progress
        self._should_stop = should_stop
        self._on_evaluation = on_evaluation
        self._processes = current()
        self._order = BatchOrder(
            objective.lengths,
            batch_size=hyperparameters.per_device_train_batch_size,
            accumulation_steps=hyperparameters.gradient_accumulation_steps * self._processes.count,
            seed=hyperparameters.seed,
        )
        by_epochs = hyperparameters.num_train_epochs * self._order.steps_per_epoch
        self.total_steps = hyperparameters.max_steps or by_epochs
        self._optimizer = build_optimizer(model, hyperparameters)
        self._state = LoopState(precision=precision.name)
        self._first_step = 0
        self._saved_at = time.monotonic()

    def run(self) -> TrainingResult:
        with explained(self._values):
            try:
                self._prepare()
                self._resume()
                self._announce()
                self._warm_up()
                status = self._train()
                self._save()
            except StopRequested:
                status = "stopped"
                self._optimizer.zero_grad()
                self._save()
        state = self._state
        if status != "stopped" and state.best_step and self._processes.is_main:
            self._store.restore_best(self._model)
        self._model.eval()
        return TrainingResult(
            status=status,
            step=state.step,
            total_steps=self.total_steps,
            best_step=state.best_step or state.step,
            train_loss=state.last_loss,
            tokens=state.tokens,
            seconds=state.seconds,
            precision=self._precision.name,
            evaluations=state.evaluations,
        )

    @torch.no_grad()
    def _prepare(self) -> None:
        self._model.eval()
        with explained(self._values, is_evaluation=True), self._precision.autocast():
            self._objective.prepare(self._check)

    def _resume(self) -> None:
        stored = self._store.restore(self._model, self._optimizer)
        if stored is not None:
            self._state = stored
            self._first_step = stored.step

    def _announce(self) -> None:
        parameters = list(self._model.parameters())
        event = Started(
            total_steps=self.total_steps,
            steps_per_epoch=self._order.steps_per_epoch,
            resumed_from=self._first_step,
            parameters=sum(parameter.numel() for parameter in parameters),
            trainable_parameters=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
            device=self._precision.device,
            precision=self._precision.name,
        )
        self._progress(event)

    def _warm_up(self) -> None:
        """The longest batch first: what does not fit fails now and not after hours. Changes no weight."""
        self._progress(Phase(name="measuring"))
        rows = self._order.longest_batch()
        started = time.perf_counter()
        self._begin_step([rows])
        self._backward(rows, units=self._objective.units(rows))
        seconds = time.perf_counter() - started
        self._optimizer.zero_grad()
        longest = max(self._objective.lengths[row] for row in rows)
        tokens = self._order.padded_tokens(self.total_steps) + self._evaluations() * EVALUATION_COST * (
            self._objective.evaluation_tokens
        )
        remaining = 1 - self._state.step / self.total_steps
        estimate = seconds / (longest * len(rows)) * tokens * remaining / self._processes.count
        event = WarmUpDone(
            longest_row=longest,
            seconds=seconds,
            peak_memory_bytes=peak_memory_bytes() + self._optimizer_bytes(),
            estimated_seconds=estimate,
        )
        self._progress(event)

    def _optimizer_bytes(self) -> int:
        """Two moments for each trained number; they come with the first update, after the warm-up."""
        groups = self._optimizer.param_groups
        trained = sum(p.numel() * p.element_size() for group in groups for p in group["params"])
        return 0 if self._optimizer.state else 2 * trained

    def _train(self) -> str:
        self._progress(Phase(name="training"))
        while True:
            if self._is_evaluation_due():
                self._evaluate()
            if self._has_stalled():
                return "early_stopped"
            if self._state.step >= self.total_steps:
                return "completed"
            self._step()
            if self._is_save_due():
                self._save()

    def _step(self) -> None:
        number = self._state.step
        started = time.perf_counter()
        torch.manual_seed(self._values.seed * 1_000_003 + number + self._processes.rank * RANK_SEED)
        batches = self._order.batches(number)
        units = sum(self._objective.units(rows) for rows in batches)
        self._begin_step(batches)
        loss = 0.0
        for rows in self._processes.share(batches):
            self._check()
            loss += self._backward(rows, units=units) if rows else 0.0
        loss = self._processes.sum(loss, device=self._precision.device)
        learning_rate = learning_rate_at(number, total_steps=self.total_steps, hyperparameters=self._values)
        norm = self._update(loss, learning_rate)
        tokens = sum(self._objective.lengths[row] for rows in batches for row in rows)
        self._state.step = number + 1
        self._state.last_loss = loss
        self._state.tokens += tokens
        self._report_step(loss, learning_rate, norm, tokens=tokens, seconds=time.perf_counter() - started)

    def _begin_step(self, batches: Sequence[Sequence[int]]) -> None:
        self._model.train()
        with self._precision.autocast():
            self._objective.begin_step(batches, self._check)

    def _backward(self, rows: Sequence[int], *, units: int) -> float:
        self._model.train()
        with self._precision.autocast():
            loss = self._objective.loss(rows) / units
        loss.backward()
        return loss.item()

    def _update(self, loss: float, learning_rate: float) -> float:
        trained = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        self._processes.sum_gradients(trained)
        norm = float(nn.utils.clip_grad_norm_(trained, self._values.max_grad_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergedError("The loss is no longer a number. Try a lower learning_rate.", step=self._state.step)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        return norm

    def _report_step(self, loss: float, learning_rate: float, norm: float, *, tokens: int, seconds: float) -> None:
        state = self._state
        state.seconds += seconds
        event = StepDone(
            step=state.step,
            total_steps=self.total_steps,
            epoch=state.step / self._order.steps_per_epoch,
            loss=loss,
            learning_rate=learning_rate,
            grad_norm=norm,
            tokens_per_second=tokens / seconds,
            tokens=state.tokens,
            eta_seconds=state.seconds / state.step * (self.total_steps - state.step),
        )
        self._progress(event)

    def _is_evaluation_due(self) -> bool:
        step = self._state.step
        every = self._values.eval_steps or self._order.steps_per_epoch
        return self._state.evaluated_step < step and (step % every == 0 or step == self.total_steps)

    def _evaluations(self) -> int:
        every = self._values.eval_steps or self._order.steps_per_epoch
        return 1 + -(-self.total_steps // every)

    @torch.no_grad()
    def _evaluate(self) -> None:
        started = time.perf_counter()
        state = self._state
        self._model.eval()
        with explained(self._values, is_evaluation=True):
            with self._precision.autocast():
                evaluation = self._processes.agree(self._objective.evaluate(self._check))
            if evaluation is not None:
                self._judge(evaluation)
            state.evaluated_step = state.step
            if self._on_evaluation and self._processes.is_main:
                self._on_evaluation(state.step)
        state.seconds += time.perf_counter() - started

    def _judge(self, evaluation: Evaluation) -> None:
        state = self._state
        # Step 0 is the base: it is the measure, not a candidate.
        is_best = state.step > 0 and (state.best_score is None or evaluation.score < state.best_score)
        if is_best:
            state.best_step, state.best_score, state.evaluations_since_best = state.step, evaluation.score, 0
            if self._processes.is_main:
                self._store.save_best(self._model, state)
        elif state.step > 0:
            state.evaluations_since_best += 1
        state.evaluations.append({"step": state.step, **evaluation.metrics})
        event = EvaluationDone(step=state.step, metrics=evaluation.metrics, score=evaluation.score, is_best=is_best)
        self._progress(event)

    def _has_stalled(self) -> bool:
        patience = self._values.early_stopping_patience
        return bool(patience) and self._state.evaluations_since_best >= patience

    def _is_save_due(self) -> bool:
        if self._values.save_steps:
            return self._state.step % self._values.save_steps == 0
        return time.monotonic() - self._saved_at >= self._values.save_seconds

    def _save(self) -> None:
        if self._state.step == 0 or not self._processes.is_main:
            return
        self._store.save(self._model, self._optimizer, self._state)
        self._saved_at = time.monotonic()
        self._progress(CheckpointSaved(step=self._state.step))

    def _check(self) -> None:
        if self._processes.any(self._should_stop(), device=self._precision.device):
            raise StopRequested
