"""One run in one folder: its options, its fingerprint, its measured precision, and the loop. For every method."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from finetuning.training.attention import use_short_rows
from finetuning.training.checkpoints import CheckpointStore
from finetuning.training.errors import StopRequested
from finetuning.training.events import Phase, Progress, ShouldStop, ignore, never
from finetuning.training.hyperparameters import FREE_ON_RESUME, Hyperparameters, Method
from finetuning.training.loading import BaseModel
from finetuning.training.loop import Objective, TrainingLoop, TrainingResult
from finetuning.training.memory import explained
from finetuning.training.parallel import current
from finetuning.training.precision import Precision, choose_precision
from finetuning.training.rendering import Message

CHECKPOINTS = "checkpoints"
MERGED = "model"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run is told beside data and hyperparameters. `folder` keeps its checkpoints and, in the end, its result.

    A run started again with the same arguments in the same folder goes on from its newest checkpoint.
    """

    folder: Path
    use_gpu: str = "auto"
    system_prompt: str = ""
    chat_template: str = ""
    sample_prompts: Sequence[Sequence[Message]] = ()
    sample_tokens: int = 64
    progress: Progress = ignore
    should_stop: ShouldStop = never

    def check(self) -> None:
        """Raises `StopRequested`: for work that is not worth a checkpoint."""
        if self.should_stop():
            raise StopRequested


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a method has prepared. `data` is a hash, `identity` more of them: a resumed run must have the same."""

    method: Method
    model: Any
    objective: Objective
    base: BaseModel
    hyperparameters: Hyperparameters
    data: str
    identity: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> dict[str, str]:
        values = {key: value for key, value in self.hyperparameters.to_dict().items() if key not in FREE_ON_RESUME}
        own = {"method": self.method.value, "data": self.data, **self.identity}
        if (count := current().count) > 1:  # another number would put other rows into a step
            own["processes"] = str(count)
        return {**own, "base": self.base.fingerprint, "hyperparameters": digest(values)}

    @property
    def origin(self) -> dict[str, Any]:
        """For the manifest of what the run gives."""
        values = self.hyperparameters.to_dict()
        return {
            "method": self.method.value,
            "hyperparameters": values,
            "data": self.data,
            "base": self.base.folder.name,
        }


def run_loop(
    run: Run, options: RunOptions, *, on_evaluation: Callable[[int, Precision], None] | None = None
) -> TrainingResult:
    """Measure the precision (a resumed run keeps its own), then train. Raises what `errors.py` names."""
    store = CheckpointStore(
        options.folder / CHECKPOINTS, fingerprint=run.fingerprint, keep=run.hyperparameters.save_total_limit
    )
    options.progress(Phase(name="measuring"))
    earlier = store.peek()
    precision = settle_precision(run, asked=earlier.precision if earlier else run.hyperparameters.precision)
    loop = TrainingLoop(
        run.model,
        run.objective,
        hyperparameters=run.hyperparameters,
        precision=precision,
        store=store,
        progress=options.progress,
        should_stop=options.should_stop,
        on_evaluation=(lambda step: on_evaluation(step, precision)) if on_evaluation else None,
    )
    return loop.run()


def settle_precision(run: Run, *, asked: str) -> Precision:
    """In which format the run computes, with everything that depends on it. Raises `TrainingMemoryError`."""
    values = run.hyperparameters
    if values.gradient_checkpointing:
        run.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    with explained(values):
        work = _typical_work(run.model, run.objective, values.per_device_train_batch_size)
        precision = current().agree(choose_precision(asked, device=run.base.model.device.type, work=work))
    _store_frozen_as_loaded(run.model, run.base, precision)
    if precision == Precision("bfloat16", "cpu"):
        use_short_rows(run.base.model)
    return precision


def digest(value: Any) -> str:
    """SHA-256 of anything JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _typical_work(model: Any, objective: Objective, batch_size: int) -> Callable[[], None]:
    by_length = sorted(range(len(objective.lengths)), key=lambda row: objective.lengths[row])
    middle = max(0, (len(by_length) - batch_size) // 2)
    rows = by_length[middle : middle + batch_size]

    def work() -> None:
        model.train()
        objective.begin_step([rows], lambda: None)
        (objective.loss(rows) / objective.units(rows)).backward()
        model.zero_grad()

    return work


def _store_frozen_as_loaded(model: Any, base: BaseModel, precision: Precision) -> None:
    """Frozen weights that came as bf16 lose nothing in bf16, and need not be cast in every step (1.75 s, not 2.05)."""
    if precision.name == "bfloat16" and base.dtype is torch.bfloat16:
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
