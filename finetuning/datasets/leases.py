"""Who reads an import: one worker at a time, which loses it when its heartbeat stops."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone

from finetuning.models import DatasetImport

Status = DatasetImport.Status
LEASE_SECONDS = 20
BEAT_SECONDS = 2.0


class LeaseLostError(Exception):
    """Somebody else reads it now: write nothing more."""


class ImportCancelledError(Exception):
    pass


def stale_before() -> datetime:
    return timezone.now() - timedelta(seconds=LEASE_SECONDS)


@dataclass(slots=True)
class Lease:
    import_id: uuid.UUID
    token: uuid.UUID
    beaten_at: float = 0.0

    def write(self, **fields: Any) -> None:
        """The import's new columns and a sign of life. Raises LeaseLostError, ImportCancelledError."""
        held = self._held()
        if not held.filter(cancel_requested_at=None).update(heartbeat_at=timezone.now(), **fields):
            raise ImportCancelledError if held.exists() else LeaseLostError
        self.beaten_at = time.monotonic()

    def write_last(self, **fields: Any) -> None:
        """The same for an import that comes to nothing, cancelled or not. Raises LeaseLostError."""
        if not self._held().update(heartbeat_at=timezone.now(), **fields):
            raise LeaseLostError
        self.beaten_at = time.monotonic()

    def beat(self) -> None:
        """Call it often: it writes only now and then. Raises as `write`."""
        if self._is_due():
            self.write()

    def beat_last(self) -> None:
        """The same for an import that comes to nothing. Raises LeaseLostError."""
        if self._is_due():
            self.write_last()

    def release(self, status: Status, **fields: Any) -> bool:
        """The end, or another state. False when somebody else reads it now."""
        return bool(self._held().update(status=status, owner_token=None, heartbeat_at=None, **fields))

    def _is_due(self) -> bool:
        return time.monotonic() - self.beaten_at > BEAT_SECONDS

    def _held(self) -> QuerySet[DatasetImport]:
        return DatasetImport.objects.filter(pk=self.import_id, owner_token=self.token, status=Status.RUNNING)


def claim(import_id: uuid.UUID) -> Lease | None:
    """Take an import that is queued, or whose reader died. One at a time: the others' turn comes later.

    One that stopped half way comes before others of its dataset: it may still take back what they would find there.
    """
    now = timezone.now()
    is_free = Q(status=Status.QUEUED) | Q(status=Status.RUNNING, heartbeat_at__lt=stale_before())
    others = DatasetImport.objects.filter(status=Status.RUNNING, heartbeat_at__gte=stale_before())
    half_read = DatasetImport.objects.filter(
        dataset=OuterRef("dataset"), status__in=[Status.QUEUED, Status.RUNNING], rows_added__gt=0
    )
    is_next = Q(rows_added__gt=0) | ~Exists(half_read)
    lease = Lease(import_id, uuid.uuid4(), time.monotonic())
    taken = DatasetImport.objects.filter(is_free, is_next, ~Exists(others.exclude(pk=import_id)), pk=import_id).update(
        status=Status.RUNNING,
        owner_token=lease.token,
        heartbeat_at=now,
        started_at=Coalesce("started_at", now),
    )
    return lease if taken else None
