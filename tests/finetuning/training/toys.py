"""A model of a few numbers and an objective on it, to test the loop without a language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from finetuning.training.events import Event, StepDone
from finetuning.training.hyperparameters import Hyperparameters
from finetuning.training.loop import Evaluation, TrainingLoop, TrainingResult
from finetuning.training.precision import Precision

VALUES = Hyperparameters(
    learning_rate=0.01,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    num_train_epochs=3,
    warmup_steps=2,
    precision="float32",
)


def toy_model(seed: int = 0, *, dropout: float = 0.3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))


class ToyObjective:
    """Learns to add four numbers; `scores` replaces the held-out losses, `before_loss` runs before each batch."""

    def __init__(
        self,
        model: nn.Module,
        *,
        rows: int = 22,
        scores: Sequence[float] | None = None,
        before_loss: Callable[[], None] | None = None,
    ) -> None:
        source = torch.Generator().manual_seed(7)
        self._x = torch.randn(rows, 4, generator=source)
        self.lengths = [3 + row % 5 for row in range(rows)]
        self.evaluation_tokens = rows
        self.seen: list[list[int]] = []
        self.evaluations = 0
        self._model = model
        self._scores = scores
        self._before_loss = before_loss

    def prepare(self, check: Callable[[], None]) -> None:
        """There is nothing to prepare."""

    def begin_step(self, batches: Sequence[Sequence[int]], check: Callable[[], None]) -> None:
        """A batch's loss depends on nothing but the batch."""

    def units(self, rows: Sequence[int]) -> int:
        return len(rows)

    def loss(self, rows: Sequence[int]) -> torch.Tensor:
        if self._before_loss:
            self._before_loss()
        self.seen.append(list(rows))
        return self._squares(self._x[list(rows)])

    def evaluate(self, check: Callable[[], None]) -> Evaluation:
        check()
        score = self._scores[self.evaluations] if self._scores else self._squares(self._x).item()
        self.evaluations += 1
        return Evaluation({"eval_loss": score}, score=score)

    def _squares(self, x: torch.Tensor) -> torch.Tensor:
        return ((self._model(x)[:, 0] - x.sum(dim=1)) ** 2).sum()


class Recorder:
    """Collects events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def losses(self) -> dict[int, float]:
        return {event.step: event.loss for event in self.of(StepDone)}


class StopAfter(Recorder):
    """Collects events, and as `should_stop` says yes from the end of a step on."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._step = step

    def should_stop(self) -> bool:
        return any(event.step >= self._step for event in self.of(StepDone))

    @property
    def options(self) -> dict:
        return {"progress": self, "should_stop": self.should_stop}


def run_toy(
    model: nn.Module, objective: ToyObjective, store, *, values: Hyperparameters = VALUES, **arguments
) -> TrainingResult:
    loop = TrainingLoop(
        model, objective, hyperparameters=values, precision=Precision("float32", "cpu"), store=store, **arguments
    )
    return loop.run()


def stop_at(call: int) -> Callable[[], bool]:
    """Says yes from the `call`-th time on that it is asked."""
    asked = iter(range(1, 10**9))
    return lambda: next(asked) >= call
