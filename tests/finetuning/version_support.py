"""A model of the engine with versions that were trained here, and the rows around them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from chat.models import Conversation, Correction, Feedback, Message
from finetuning.models import Dataset, DatasetVersion, Evaluation, FineTuningJob, Lineage
from models_hub import services
from models_hub.models import PRODUCTION, Connection, ModelVersion, RegisteredModel

SLUG = "harbour-helper"


def make_trained_model(slug: str = SLUG) -> RegisteredModel:
    """Its version 1, the base, is in production."""
    connection, _ = Connection.objects.get_or_create(name="Engine of the tests", kind=Connection.Kind.ENGINE)
    model = RegisteredModel.objects.create(slug=slug, name=slug.title(), connection=connection)
    base = services.add_version(model, source=slug)
    services.move_alias(model, PRODUCTION, base, actor=None, reason="First.")
    return model


def make_dataset_version(name: str = "Harbour talk", number: int = 1) -> DatasetVersion:
    dataset, _ = Dataset.objects.get_or_create(name=name, defaults={"kind": Dataset.Kind.CHAT})
    return DatasetVersion.objects.create(dataset=dataset, number=number, content_hash=str(number) * 64, rows=120)


def add_trained(
    model: RegisteredModel,
    *,
    dataset_version: DatasetVersion | None = None,
    base: ModelVersion | None = None,
    is_evaluated: bool = True,
    after: dict[str, Any] | None = None,
    answers: list[dict[str, Any]] | None = None,
) -> ModelVersion:
    """As a job registers one."""
    number = services.take_number(model)
    base = base or model.versions.get(number=1)
    dataset_version = dataset_version or make_dataset_version(number=number)
    job = FineTuningJob.objects.create(
        name=f"Job of version {number}",
        method="lora_sft",
        base=str(base),
        target=model.slug,
        dataset_version=dataset_version,
        base_version=base,
        status=FineTuningJob.Status.SUCCEEDED,
    )
    source = f"{model.slug}/{number}"
    version = services.add_version(
        model, number=number, source=source, needs_evaluation=True, manifest={"model.safetensors": "ab" * 32}
    )
    Lineage.objects.create(
        version=version,
        job=job,
        dataset_version=dataset_version,
        base_version=base,
        method="lora_sft",
        hyperparameters={"learning_rate": 2e-4},
        adapter_folder=f"{source}-adapter",
        card=f"# {model.name} {number}\n\nKnows the harbour.",
    )
    if is_evaluated:
        add_evaluation(version, job=job, after=after or {"eval_loss": 1.5, "perplexity": 4.48}, answers=answers or [])
    return version


def add_evaluation(version: ModelVersion, **fields: Any) -> Evaluation:
    values = {
        "before": {"eval_loss": 2.25, "perplexity": 9.49},
        "general_before": {"eval_loss": 3.0},
        "general_after": {"eval_loss": 3.1},
        "stop_rate_before": 0.5,
        "stop_rate_after": 1.0,
        "status": Evaluation.Status.COMPLETE,
    }
    evaluation = Evaluation.objects.create(version=version, **values | fields)
    ModelVersion.objects.filter(pk=version.pk).update(evaluated_at=evaluation.created_at)
    version.refresh_from_db()
    return evaluation


def rate(version: ModelVersion, owner, *ratings: int, corrections: int = 0) -> None:
    """A reply of this version for each rating; the first ones are corrected too."""
    conversation = Conversation.objects.create(owner=owner, model=version.model.slug)
    for place, rating in enumerate(ratings):
        message = Message.objects.create(
            conversation=conversation, role="assistant", content="Yes.", model=version.model.slug, version=version
        )
        Feedback.objects.create(message=message, user=owner, rating=rating)
        if place < corrections:
            Correction.objects.create(message=message, user=owner, content="No.")


def write_folders(version: ModelVersion, cache: Path, *, size: int = 3_000_000) -> None:
    """The merged folder and the adapter's, as training leaves them; the weights are no real ones."""
    for name, weights in ((version.source, "model.safetensors"), (f"{version.source}-adapter", "adapter.safetensors")):
        folder = cache / name
        folder.mkdir(parents=True)
        (folder / weights).write_bytes(bytes(range(256)) * (size // 256))
        (folder / "config.json").write_text("{}")
        (folder / "manifest.json").write_text(json.dumps({"files": {weights: "ab" * 32}}))
