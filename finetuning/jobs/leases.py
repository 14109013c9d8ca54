"""Who works for which job: claims, one slot for each training, and a thread that keeps a lease alive."""

from __future__ import annotations

import logging
import threading
import time
from enum import StrEnum
from typing import Self
from uuid import UUID, uuid4

from django.db import Error as DatabaseFault
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone

from config.app_settings import get_settings
from finetuning.jobs import shutdown
from finetuning.jobs.states import BEAT_SECONDS, FREE, Lease, Status, add_event, beat, look, move
from finetuning.live.nudges import announce_job
from finetuning.models import DatasetVersion, FineTuningJob, TrainingQueue

QUEUE_ID = 1
VALIDATIONS = 1
VALIDATING = "validating"
LOOK_SECONDS = 0.5

logger = logging.getLogger(__name__)


# --- the queue --------------------------------------------------------------------------------------------------------


def waiting_jobs() -> QuerySet[FineTuningJob]:
    """What may start, in the order in which it will: priority, then age."""
    waiting = FineTuningJob.objects.filter(status=Status.QUEUED, is_held=False)
    return waiting.order_by("-priority", F("queued_at").asc(nulls_last=True), "pk")


def count_free_slots() -> int:
    """How many trainings may start now, over all workers."""
    running = Q(status=Status.RUNNING) | (Q(status=Status.CANCELLING) & ~Q(phase=VALIDATING))
    taken = FineTuningJob.objects.filter(running, owner_token__isnull=False).count()
    return max(0, get_settings().training_workers - taken)


def count_free_validations() -> int:
    """A validation loads the base: a few at once would take the memory of several trainings."""
    busy = [Status.VALIDATING_FILES, Status.CANCELLING]
    taken = FineTuningJob.objects.filter(status__in=busy, phase=VALIDATING, owner_token__isnull=False).count()
    return max(0, VALIDATIONS - taken)


def lock_queue() -> TrainingQueue:
    """Within a transaction: whoever counts slots does it alone. SQLite locks by beginning a transaction at all."""
    queue, _ = TrainingQueue.objects.select_for_update().get_or_create(pk=QUEUE_ID)
    return queue


def claim_validation(job_id: UUID) -> Lease | None:
    """None: somebody else has it, it is in another state, its data is still being frozen, or others are validated."""
    with transaction.atomic():
        lock_queue()
        if not count_free_validations():
            return None
        rows = FineTuningJob.objects.filter(pk=job_id, status=Status.VALIDATING_FILES, owner_token=None)
        rows = rows.exclude(dataset_version__status=DatasetVersion.Status.FREEZING)
        return _take(rows, job_id, phase=VALIDATING)


def claim_run(job_id: UUID) -> Lease | None:
    """None: somebody else has it, it is not its turn, the queue is paused, or every slot is taken."""
    with transaction.atomic():
        if lock_queue().paused_at is not None:
            return None
        next_ones = waiting_jobs().values_list("pk", flat=True)[: count_free_slots()]
        if job_id not in list(next_ones):
            return None
        rows = FineTuningJob.objects.filter(pk=job_id, status=Status.QUEUED, owner_token=None)
        started_at = Coalesce("started_at", timezone.now())
        return _take(rows, job_id, status=Status.RUNNING, phase="starting", started_at=started_at)


def _take(rows: QuerySet[FineTuningJob], job_id: UUID, **changes: object) -> Lease | None:
    lease = Lease(job_id, uuid4())
    changes |= {"owner_token": lease.token, "heartbeat_at": timezone.now(), "attempt": F("attempt") + 1}
    if not rows.update(**changes):
        return None
    add_event(job_id, "claimed", "Work begins.", level="debug")
    announce_job(job_id)
    return lease


def pass_on_validated(lease: Lease, preflight: dict) -> bool:
    """Validated: it waits for its turn, or until somebody starts it."""
    return move(
        lease.job_id,
        come_from=[Status.VALIDATING_FILES],
        to=Status.QUEUED,
        owner=lease.token,
        code="validated",
        message="The data has been checked.",
        phase="",
        preflight=preflight,
        attempt=0,
        queued_at=timezone.now(),
        **FREE,
    )


# --- a sign of life ---------------------------------------------------------------------------------------------------


class StopReason(StrEnum):
    CANCELLED = "cancelled"
    SHUTDOWN = "shutdown"
    LOST = "lost"


class Heart:
    """Beats for a lease in a thread of its own while the work goes on, and knows when the work must end.

    A database that is away for a while is no reason to end: the child goes on, and the row says afterwards whose the
    job is.
    """

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._ended = threading.Event()
        self._status: str | None = ""
        self._thread = threading.Thread(target=self._run, name=f"heart-{lease.job_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def stop_reason(self) -> StopReason | None:
        if self._status is None:
            return StopReason.LOST
        if self._status == Status.CANCELLING:
            return StopReason.CANCELLED
        return StopReason.SHUTDOWN if shutdown.is_requested() else None

    def _run(self) -> None:
        beaten_at = float("-inf")
        try:
            while not self._ended.wait(LOOK_SECONDS):
                is_due = time.monotonic() - beaten_at >= BEAT_SECONDS
                try:
                    self._status = beat(self._lease) if is_due else look(self._lease)
                except DatabaseFault as error:
                    logger.warning("job %s: no heartbeat (%s)", self._lease.job_id, type(error).__name__)
                    connection.close()
                    continue
                if is_due:
                    beaten_at = time.monotonic()
        finally:
            connection.close()
