"""What a job's child is told to do, as `spec.json` has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config.app_settings import get_settings
from finetuning.datasets import split_path
from finetuning.jobs.bases import base_folder
from finetuning.models import FineTuningJob
from finetuning.training.hyperparameters import Hyperparameters, Method

SPLITS = ("train", "validation", "test")
EVALUATION_BATCH = "per_device_eval_batch_size"


def make_spec(
    job: FineTuningJob, mode: str, *, tuned: Path | None = None, prompts: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Raises InvalidError when the base is no longer there."""
    version = job.dataset_version
    files = {split: str(split_path(version, split)) for split in SPLITS if version.counts.get(split)}
    return {
        "mode": mode,
        "method": job.method,
        "kind": version.kind,
        "base": str(base_folder(job.base_version)),
        "files": files,
        "hyperparameters": job.hyperparameters,
        "system_prompt": job.system_prompt,
        "sample_prompts": job.sample_prompts,
        "use_gpu": get_settings().use_gpu,
        "adapter": None,
        "processes": get_settings().training_processes,
        "tuned": str(tuned) if tuned else None,
        "prompts": list(prompts),
    }


def resolved(job: FineTuningJob) -> Hyperparameters:
    """All of them: as the pre-flight report has them, or by the method's defaults before there is one.

    The batch of evaluations may have been lowered since.
    """
    known = (job.preflight or {}).get("hyperparameters")
    if known:
        lowered = {name: value for name, value in job.hyperparameters.items() if name == EVALUATION_BATCH}
        return Hyperparameters.from_dict({**known, **lowered})
    rows = max(1, job.dataset_version.counts.get("train", 0))
    return Hyperparameters.for_method(Method(job.method), rows=rows, **job.hyperparameters)
