"""Who reads an import: one worker at a time, which loses it when its heartbeat stops."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Exists, Q
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
        held = DatasetImport.objects.filter(pk=self.import_id, owner_token=self.token, status=Status.RUNNING)
        if not held.filter(cancel_requested_at=None).update(heartbeat_at=timezone.now(), **fields):
            raise ImportCancelledError if held.exists() else LeaseLostError
        self.beaten_at = time.monotonic()

    def beat(self) -> None:
        """Call it often: it writes only now and then. Raises as `write`."""
        if time.monotonic() - self.beaten_at > BEAT_SECONDS:
            self.write()

    def release(self, status: Status, **fields: Any) -> bool:
        """The end, or another state. False when somebody else reads it now."""
        held = DatasetImport.objects.filter(pk=self.import_id, owner_token=self.token, status=Status.RUNNING)
        return bool(held.update(status=status, owner_token=None, heartbeat_at=None, **fields))


def claim(import_id: uuid.UUID) -> Lease | None:
    """Take an import that is queued, or whose reader died. One at a time: the others' turn comes later."""
    now = timezone.now()
    is_free = Q(status=Status.QUEUED) | Q(status=Status.RUNNING, heartbeat_at__lt=stale_before())
    others = DatasetImport.objects.filter(status=Status.RUNNING, heartbeat_at__gte=stale_before())
    lease = Lease(import_id, uuid.uuid4(), time.monotonic())
    taken = DatasetImport.objects.filter(is_free, ~Exists(others.exclude(pk=import_id)), pk=import_id).update(
        status=Status.RUNNING,
        owner_token=lease.token,
        heartbeat_at=now,
        started_at=Coalesce("started_at", now),
    )
    return lease if taken else None
