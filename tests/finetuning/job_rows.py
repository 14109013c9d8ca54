"""Rows of jobs as worker and child leave them, for the tests of pages and sockets."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from django.utils import timezone

from finetuning.models import Dataset, DatasetVersion, Evaluation, FineTuningJob, JobEvent, JobMetric
from models_hub.models import PRODUCTION, Alias, Connection, ModelVersion, RegisteredModel

Status = FineTuningJob.Status


def make_base(slug: str = "smollm2-135m-instruct", *, task: str = "chat") -> ModelVersion:
    """A model of the engine with one version; the same row when it is there already."""
    if found := ModelVersion.objects.filter(model__slug=slug).first():
        return found
    connection, _ = Connection.objects.get_or_create(name="Engine", defaults={"kind": Connection.Kind.ENGINE})
    model = RegisteredModel.objects.create(slug=slug, name=slug.title(), task=task, connection=connection)
    version = ModelVersion.objects.create(model=model, number=1, provider_model=f"{slug}@1", source=slug)
    Alias.objects.create(model=model, name=PRODUCTION, version=version)
    return version


def make_version(name: str = "Support answers", *, kind: str = "chat", rows: int = 240) -> DatasetVersion:
    dataset, _ = Dataset.objects.get_or_create(name=name, defaults={"kind": kind})
    return DatasetVersion.objects.create(
        dataset=dataset,
        number=dataset.versions.count() + 1,
        kind=kind,
        status=DatasetVersion.Status.READY,
        rows=rows,
        counts={"train": rows * 9 // 10, "validation": rows - rows * 9 // 10, "test": 0},
        content_hash=uuid4().hex * 2,
    )


def make_job(user, status: str = Status.RUNNING, **fields: Any) -> FineTuningJob:
    defaults = {
        "name": "Support answers",
        "method": "lora_sft",
        "base": "smollm2-135m-instruct",
        "target": "smollm2-135m-instruct-support-answers",
        "queued_at": timezone.now(),
        "created_by": user,
    }
    if "dataset_version" not in fields:
        defaults["dataset_version"] = make_version()
    if "base_version" not in fields:
        defaults["base_version"] = make_base()
    return FineTuningJob.objects.create(status=status, **(defaults | fields))


def add_steps(job: FineTuningJob, first: int, last: int, *, evaluate_every: int = 0) -> None:
    """Steps as a run stores them, and the job's own counter with them."""
    JobMetric.objects.bulk_create(
        JobMetric(
            job=job,
            step=step,
            epoch=step / 40,
            loss=2.0 / (1 + step / 10),
            learning_rate=2e-4,
            grad_norm=1.0,
            tokens_per_second=320.0,
            evaluation={"loss": 2.1 / (1 + step / 10)} if evaluate_every and step % evaluate_every == 0 else None,
        )
        for step in range(first, last + 1)
    )
    FineTuningJob.objects.filter(pk=job.pk).update(step=last, total_steps=max(120, last))


def add_event(job: FineTuningJob, code: str, message: str = "", **fields: Any) -> JobEvent:
    return JobEvent.objects.create(job=job, code=code, message=message, **fields)


def make_result(job: FineTuningJob, *, is_evaluated: bool = True, **evaluation: Any) -> ModelVersion:
    """The version that came out of it, and how it did."""
    base = job.base_version.model
    model, _ = RegisteredModel.objects.get_or_create(
        slug=job.target, defaults={"name": job.name, "task": base.task, "connection": base.connection}
    )
    number = model.versions.count() + 1
    version = ModelVersion.objects.create(
        model=model,
        number=number,
        provider_model=f"{job.target}@{number}",
        source=f"{job.target}/{number}",
        needs_evaluation=True,
        evaluated_at=timezone.now() if is_evaluated else None,
    )
    FineTuningJob.objects.filter(pk=job.pk).update(result_version=version)
    job.result_version = version
    if is_evaluated:
        Evaluation.objects.create(version=version, job=job, **({"status": Evaluation.Status.COMPLETE} | evaluation))
    return version


HYPERPARAMETERS = {"learning_rate": 2e-4, "num_train_epochs": 3, "per_device_train_batch_size": 4, "max_length": 512}
PREFLIGHT: dict[str, Any] = {
    "rows": 216,
    "held_out_rows": 24,
    "sequences": 214,
    "excluded": [
        {"row": 17, "id": 1, "code": "chat_template", "message": "Two questions follow each other without an answer."},
        {"row": 90, "id": 2, "code": "too_long", "message": "Cut to 512 tokens, nothing trained would be left."},
    ],
    "excluded_codes": {"chat_template": 1, "too_long": 1},
    "cut": 3,
    "cut_tokens": 412,
    "max_length": 512,
    "tokens": 41_230,
    "trained_tokens": 18_400,
    "trained_share": 18_400 / 41_230,
    "length_histogram": {"64": 21, "128": 84, "256": 90, "512": 17, "1024": 2},
    "template_hash": "a" * 64,
    "system_prompt": "You answer for the Harbour workshop.",
    "samples": [
        {
            "row": 3,
            "id": 9,
            "title": "",
            "tokens": 31,
            "trained_tokens": 14,
            "pieces": [
                {
                    "text": "<|im_start|>user\nWhen are you open?<|im_end|>\n<|im_start|>assistant\n",
                    "is_trained": False,
                },
                {"text": "Monday to Friday, nine to six.<|im_end|>", "is_trained": True},
                {"text": "\n", "is_trained": False},
            ],
        }
    ],
    "labels": {},
    "warnings": [{"code": "rows_excluded", "message": "2 of 216 rows are left out."}],
    "errors": [],
    "estimate": {"seconds": 754.0, "peak_memory_bytes": 2_900_000_000, "device": "cpu", "precision": "bfloat16"},
    "hyperparameters": HYPERPARAMETERS,
}
CLASSIFIED = {
    "accuracy": 0.874,
    "macro_f1": 0.872,
    "majority": 0.55,
    "per_class": {
        "negative": {"precision": 0.87, "recall": 0.85, "f1": 0.86, "support": 675},
        "positive": {"precision": 0.88, "recall": 0.89, "f1": 0.885, "support": 825},
    },
    "confusion": [[574, 101], [88, 737]],
}
