"""What a worker looks after every few seconds: imports and versions nobody works at, and what was left lying about."""

from __future__ import annotations

import shutil
import time
from datetime import timedelta
from pathlib import Path

from django.utils import timezone

from config.app_settings import get_settings
from finetuning.datasets.dispatch import send
from finetuning.datasets.folders import dataset_folder
from finetuning.datasets.freezing import unfrozen
from finetuning.datasets.imports import ABANDONED_AFTER, UNDONE, Status, cancel_import, take_back
from finetuning.datasets.leases import stale_before
from finetuning.datasets.review import delete_examples
from finetuning.datasets.uploads import finish_arrived
from finetuning.models import Dataset, DatasetImport, DatasetVersion, Example

PURGED_AFTER = timedelta(days=30)
ROOM_SECONDS = 3600


def tend() -> None:
    """Sends the next import, wakes what has lost its worker. Quick: the work itself is in tasks of its own."""
    finish_arrived()
    running = DatasetImport.objects.filter(status=Status.RUNNING, heartbeat_at__gte=stale_before())
    if not running.exists():
        waiting = DatasetImport.objects.filter(status__in=[Status.QUEUED, Status.RUNNING]).order_by("created_at")
        next_one = waiting.filter(rows_added__gt=0).first() or waiting.first()  # see `leases.claim`
        if next_one is not None:
            send("run_import", next_one.pk)
    for version_id in unfrozen():
        send("freeze_version", version_id)


def clean_up() -> None:
    """Rows of imports that did not succeed, uploads nobody goes on with, deleted datasets after a while."""
    unfinished = DatasetImport.objects.filter(status__in=UNDONE, rows_added__gt=0)
    for source_import in unfinished:
        take_back(source_import)
    for source_import in DatasetImport.objects.filter(status=Status.RECEIVING):
        if _is_abandoned(source_import):
            cancel_import(source_import)
    _remove_strays()
    for dataset in Dataset.objects.filter(deleted_at__lt=timezone.now() - PURGED_AFTER):
        _purge(dataset)


def _is_abandoned(source_import: DatasetImport) -> bool:
    """Its file tells when the last part came."""
    try:
        touched = _uploads().joinpath(str(source_import.pk)).stat().st_mtime
    except FileNotFoundError:
        return True
    return time.time() - touched > ABANDONED_AFTER.total_seconds()


def _remove_strays() -> None:
    """Files of a process that died between making room and keeping the row."""
    known = {str(pk) for pk in DatasetImport.objects.filter(finished_at=None).values_list("pk", flat=True)}
    for path in _uploads().glob("*"):
        if path.name.removesuffix(".parts") not in known and time.time() - path.stat().st_mtime > ROOM_SECONDS:
            path.unlink(missing_ok=True)


def _uploads() -> Path:
    return get_settings().data_dir / "uploads"


def _purge(dataset: Dataset) -> None:
    """All of it, unless models were trained on it: then its frozen versions stay."""
    delete_examples(Example.objects.filter(dataset=dataset))
    used = DatasetVersion.objects.filter(dataset=dataset).exclude(jobs=None, lineages=None)
    if used.exists() or dataset.schedules.exists():
        DatasetImport.objects.filter(dataset=dataset).delete()
        return
    shutil.rmtree(dataset_folder(dataset.pk), ignore_errors=True)
    dataset.delete()
