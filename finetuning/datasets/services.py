"""Datasets themselves: made, renamed, deleted."""

from __future__ import annotations

from uuid import uuid4

from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.models import User
from chat.errors import BusyError, InvalidError
from chat.text import check_text
from finetuning.datasets.imports import ENDED, cancel_import
from finetuning.models import Dataset, DatasetImport, FineTuningJob
from finetuning.models.jobs import ENDED_JOBS

MAX_NAME = 200
MAX_DESCRIPTION = 5_000


def create_dataset(name: str, *, user: User | None, kind: str = "", description: str = "") -> Dataset:
    """Raises InvalidError, also when the name is taken, and TooLongError."""
    if kind and kind not in Dataset.Kind.values:
        raise InvalidError(f"A dataset holds one of {', '.join(Dataset.Kind.values)}.")
    name, description = _check_name(name), _check_description(description)
    try:
        with transaction.atomic():
            return Dataset.objects.create(name=name, kind=kind, description=description, created_by=user)
    except IntegrityError as error:
        raise _taken(name) from error


def find_or_create_dataset(name: str) -> Dataset:
    """For commands, which know names and nobody who asks. Raises InvalidError."""
    found = Dataset.objects.filter(name=_check_name(name), deleted_at=None).first()
    return found or create_dataset(name, user=None)


def rename_dataset(dataset: Dataset, *, name: str | None = None, description: str | None = None) -> Dataset:
    """Raises InvalidError, TooLongError."""
    changes: dict[str, object] = {"updated_at": timezone.now()}
    if name is not None:
        changes["name"] = _check_name(name)
    if description is not None:
        changes["description"] = _check_description(description)
    try:
        with transaction.atomic():
            Dataset.objects.filter(pk=dataset.pk).update(**changes)
    except IntegrityError as error:
        raise _taken(str(changes["name"])) from error
    dataset.refresh_from_db()
    return dataset


def delete_dataset(dataset: Dataset) -> None:
    """Out of sight at once, and its name free again. Frozen versions that models were trained on stay as their lineage.

    Raises BusyError while a job that has not ended uses one of its versions.
    """
    jobs = FineTuningJob.objects.filter(dataset_version__dataset=dataset).exclude(status__in=ENDED_JOBS)
    if jobs.exists():
        raise BusyError("A training that has not ended uses this dataset. Cancel it first.")
    for source_import in DatasetImport.objects.filter(dataset=dataset).exclude(status__in=ENDED):
        cancel_import(source_import)
    name = f"{dataset.name[:150]} (deleted, {uuid4().hex[:8]})"  # nobody has called another one that
    Dataset.objects.filter(pk=dataset.pk, deleted_at=None).update(deleted_at=timezone.now(), name=name)
    dataset.refresh_from_db()


def _check_name(name: str) -> str:
    name = " ".join(name.split())
    if not name or not name.isprintable():
        raise InvalidError("The dataset needs a name.", name="Give it a name.")
    if len(name) > MAX_NAME:
        raise InvalidError(f"A name may have {MAX_NAME} characters.", name="Too long.")
    return name


def _check_description(description: str) -> str:
    return check_text(description, limit=MAX_DESCRIPTION, field="description", required=False).strip()


def _taken(name: str) -> InvalidError:
    return InvalidError(f"There is a dataset named “{name}” already. Choose another name.", name="Taken.")
