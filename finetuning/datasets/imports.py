"""The states of an import outside its reading: what it waits for, how it ends, and how its rows are taken back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone

from finetuning.datasets.dispatch import send
from finetuning.datasets.drafts import check_kind
from finetuning.datasets.folders import marks_path, under_data, upload_path
from finetuning.datasets.layouts import examine
from finetuning.datasets.polite import BATCH_ROWS, Pace
from finetuning.formats import get_row_format
from finetuning.models import Dataset, DatasetImport, Example

Status = DatasetImport.Status
UNDONE = (Status.FAILED, Status.CANCELLED)
ENDED = (Status.SUCCEEDED, *UNDONE)
ABANDONED_AFTER = timedelta(days=2)


def describe_examined(source_import: DatasetImport) -> tuple[Status, dict[str, Any]]:
    """What to do with a file that is here, and its layout. Raises FileRefusedError, WrongKindError."""
    kind = Dataset.objects.values_list("kind", flat=True).get(pk=source_import.dataset_id)
    wanted = source_import.layout.get("wanted_format", "auto")
    examined = examine(under_data(source_import.path), kind=kind, format_name=wanted)
    if not examined.is_sure:
        return Status.WAITING, {"layout": examined.to_dict()}
    check_kind(source_import.dataset, get_row_format(examined.layout.format_name).kind)
    return Status.QUEUED, {"layout": examined.to_dict()}


def end_receiving(source_import: DatasetImport, status: Status, **fields: Any) -> bool:
    """False when another tab was faster."""
    if status in ENDED:
        fields["finished_at"] = timezone.now()
    receiving = DatasetImport.objects.filter(pk=source_import.pk, status=Status.RECEIVING)
    if not receiving.update(status=status, **fields):
        return False
    marks_path(source_import.pk).unlink(missing_ok=True)
    if status in ENDED:
        remove_file(source_import)
    return True


def cancel_import(source_import: DatasetImport) -> DatasetImport:
    """Whatever it does: a running one stops within seconds, and rows it has added go again. Ended ones stay ended.

    One that waits half read for the next worker has not ended before that one has taken its rows back.
    """
    now = timezone.now()
    rows = DatasetImport.objects.filter(pk=source_import.pk)
    has_no_rows = Q(status__in=[Status.RECEIVING, Status.WAITING]) | Q(status=Status.QUEUED, rows_added=0)
    if rows.filter(has_no_rows).update(status=Status.CANCELLED, finished_at=now, cancel_requested_at=now):
        remove_file(source_import)
    else:
        begun = rows.filter(status__in=[Status.QUEUED, Status.RUNNING], cancel_requested_at=None)
        begun.update(cancel_requested_at=now)
    source_import.refresh_from_db()
    if source_import.status == Status.QUEUED:
        send("run_import", source_import.pk)
    return source_import


def remove_file(source_import: DatasetImport) -> None:
    """An uploaded file; one that lay on this machine before stays."""
    upload_path(source_import.pk).unlink(missing_ok=True)
    marks_path(source_import.pk).unlink(missing_ok=True)


def take_back(source_import: DatasetImport, *, after_batch: Callable[[], None] = lambda: None) -> int:
    """Removes the rows of an import that failed or was cancelled, so that it leaves nothing half done.

    Minutes for a large one. What `after_batch` raises ends it; the rest goes when it is called again.
    """
    rows = Example.objects.filter(source_import=source_import)
    removed, pace = 0, Pace()
    while ids := list(rows.order_by("pk").values_list("pk", flat=True)[:BATCH_ROWS]):
        pace.wait()
        removed += Example.objects.filter(pk__in=ids).delete()[0]
        pace.ended()
        after_batch()
    DatasetImport.objects.filter(pk=source_import.pk).update(rows_added=0, findings={})
    forget_kind(source_import.dataset_id)
    return removed


def forget_kind(dataset_id: int) -> None:
    """A dataset that holds nothing, and never did, takes rows of any kind again."""
    Dataset.objects.filter(pk=dataset_id, examples=None, versions=None).update(kind="")
