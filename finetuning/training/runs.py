"""One run in one folder: its options, its fingerprint, its measured precision, and the loop. For every method."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetuning.training.checkpoints import CheckpointStore
from finetuning.training.events import Phase, Progress, ShouldStop, ignore, never
from finetuning.training.hyperparameters import FREE_ON_RESUME, Hyperparameters
from finetuning.training.loading import BaseModel
from finetuning.training.loop import Objective, TrainingLoop, TrainingResult
from finetuning.training.memory import explained
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


def run_loop(
    model: Any,
    objective: Objective,
    base: BaseModel,
    *,
    hyperparameters: Hyperparameters,
    options: RunOptions,
    fingerprint: dict[str, str],
    on_evaluation: Callable[[int, Precision], None] | None = None,
) -> TrainingResult:
    """Measure the precision (a resumed run keeps its own), then train. Raises what `errors.py` names."""
    values = {key: value for key, value in hyperparameters.to_dict().items() if key not in FREE_ON_RESUME}
    store = CheckpointStore(
        options.folder / CHECKPOINTS,
        fingerprint={**fingerprint, "base": base.fingerprint, "hyperparameters": digest(values)},
        keep=hyperparameters.save_total_limit,
    )
    if hyperparameters.gradient_checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    options.progress(Phase(name="measuring"))
    earlier = store.peek()
    asked = earlier.precision if earlier else hyperparameters.precision
    with explained(hyperparameters):
        work = _typical_work(model, objective, hyperparameters.per_device_train_batch_size)
        precision = choose_precision(asked, device=base.model.device.type, work=work)
    _store_frozen_as_loaded(model, base, precision)
    loop = TrainingLoop(
        model,
        objective,
        hyperparameters=hyperparameters,
        precision=precision,
        store=store,
        progress=options.progress,
        should_stop=options.should_stop,
        on_evaluation=(lambda step: on_evaluation(step, precision)) if on_evaluation else None,
    )
    return loop.run()


def digest(value: Any) -> str:
    """SHA-256 of anything JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _typical_work(model: Any, objective: Objective, batch_size: int) -> Callable[[], None]:
    by_length = sorted(range(len(objective.lengths)), key=lambda row: objective.lengths[row])
    middle = max(0, (len(by_length) - batch_size) // 2)
    rows = by_length[middle : middle + batch_size]

    def work() -> None:
        model.train()
        (objective.loss(rows) / objective.units(rows)).backward()
        model.zero_grad()

    return work


def _store_frozen_as_loaded(model: Any, base: BaseModel, precision: Precision) -> None:
    """Frozen weights that came as bf16 lose nothing in bf16, and need not be cast in every step (1.75 s, not 2.05)."""
    if precision.name == "bfloat16" and base.dtype is torch.bfloat16:
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
