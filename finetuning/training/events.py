"""What a run tells its caller while it goes on. Small frozen records; the caller decides where they go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Event:
    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields, and the class's name as `event`."""
        return {"event": type(self).__name__, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Phase(Event):
    """What begins now: loading, measuring, training, saving."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """`resumed_from` is the last step that is done already; forget metrics of later steps, they come again."""

    total_steps: int
    steps_per_epoch: int
    resumed_from: int
    parameters: int
    trainable_parameters: int
    device: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class WarmUpDone(Event):
    """Measured on the longest batch. Memory is the process's peak in bytes (the device's on a GPU)."""

    longest_row: int
    seconds: float
    peak_memory_bytes: int
    estimated_seconds: float


@dataclass(frozen=True, kw_only=True)
class StepDone(Event):
    """`loss` is the mean over the step's trained tokens (or rows), before the update; `tokens` are the run's so far."""

    step: int
    total_steps: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    tokens: int
    eta_seconds: float


@dataclass(frozen=True, kw_only=True)
class EvaluationDone(Event):
    """Step 0 is the base before training. Lower `score` is better, whatever the metric."""

    step: int
    metrics: dict[str, Any]
    score: float
    is_best: bool


@dataclass(frozen=True, kw_only=True)
class Answer:
    prompt: str
    text: str
    has_stopped: bool
    tokens: int


@dataclass(frozen=True, kw_only=True)
class SamplesWritten(Event):
    step: int
    answers: list[Answer] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(Event):
    step: int
    is_best: bool = False


@dataclass(frozen=True, kw_only=True)
class Succeeded(Event):
    """The last event of a run that did what it was told; `result` depends on the mode."""

    result: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Stopped(Event):
    """The last event of a run that was asked to stop. Started again, it goes on from its checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The last event of a run that cannot go on. The code is stable, the sentence is for a person."""

    code: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)


Progress = Callable[[Event], None]
ShouldStop = Callable[[], bool]


def ignore(_event: Event) -> None:
    """The progress of a caller who does not want to know."""


def never() -> bool:
    return False
