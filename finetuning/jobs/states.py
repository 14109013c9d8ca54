"""Every move of a job's status: a compare-and-set on (status, owner token). Whoever changes the row has won."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from finetuning.live.nudges import announce_job
from finetuning.models import Evaluation, FineTuningJob, JobEvent
from finetuning.models.jobs import ENDED_JOBS

Status = FineTuningJob.Status
# A beat is written every 2 s. Silent for longer than the first, its owner is taken for dead when somebody waits for
# the end of a cancelled job; for longer than the second, the job is given to another worker.
BEAT_SECONDS = 2.0
SILENT_AFTER = timedelta(seconds=6)
STALE_AFTER = timedelta(seconds=20)
MAX_ATTEMPTS = 3
LOST = "worker_lost"

logger = logging.getLogger(__name__)


class LostLeaseError(Exception):
    """The row has another owner by now, or none: whatever is done for it here must end."""


class JobFailedError(Exception):
    """The job cannot go on. The code is stable, the sentence is for a person."""

    def __init__(self, code: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or {}


class ChildLostError(Exception):
    """The process that did the work is gone, and nothing says that it was the job's fault: it may be tried again."""


@dataclass(frozen=True)
class Lease:
    """The right to work for a job: valid while its token stands in the row."""

    job_id: UUID
    token: UUID


def move(
    job_id: UUID,
    *,
    come_from: Iterable[str],
    to: str,
    owner: UUID | None,
    code: str,
    message: str = "",
    level: str = "info",
    data: dict[str, Any] | None = None,
    **changes: Any,
) -> bool:
    """Whether the row was in one of these states with this owner; then it has moved, and its log says so."""
    with transaction.atomic():
        rows = FineTuningJob.objects.filter(pk=job_id, status__in=list(come_from), owner_token=owner)
        if not rows.update(status=to, **changes):
            return False
        if to in ENDED_JOBS:  # whoever was at it has died, or would have said how it ended
            Evaluation.objects.filter(job_id=job_id, status=Evaluation.Status.RUNNING).delete()
        add_event(job_id, code, message, level=level, data=data)
    logger.info("job %s: %s", job_id, code, extra={"status": to})
    announce_job(job_id)
    return True


def add_event(
    job_id: UUID, code: str, message: str = "", *, level: str = "info", data: dict[str, Any] | None = None
) -> None:
    """A line in the job's log."""
    JobEvent.objects.create(job_id=job_id, code=code, message=message, level=level, data=data or {})


def beat(lease: Lease) -> str | None:
    """Say that the owner is alive. The row's status; None when it is no longer his."""
    mine = FineTuningJob.objects.filter(pk=lease.job_id, owner_token=lease.token)
    if not mine.update(heartbeat_at=timezone.now()):
        return None
    return mine.values_list("status", flat=True).first()


def look(lease: Lease) -> str | None:
    """The row's status; None when it is no longer his."""
    return (
        FineTuningJob.objects.filter(pk=lease.job_id, owner_token=lease.token).values_list("status", flat=True).first()
    )


def set_phase(lease: Lease, phase: str, message: str = "") -> None:
    """Raises LostLeaseError."""
    with transaction.atomic():
        if not FineTuningJob.objects.filter(pk=lease.job_id, owner_token=lease.token).update(phase=phase):
            raise LostLeaseError
        add_event(lease.job_id, "phase", message, data={"name": phase})
    announce_job(lease.job_id)


def is_silent(job: FineTuningJob, *, now: datetime | None = None) -> bool:
    """Nobody works for it, or whoever did has not been heard of for a while."""
    if job.owner_token is None or job.heartbeat_at is None:
        return True
    return job.heartbeat_at < (now or timezone.now()) - SILENT_AFTER


# --- ends of a lease --------------------------------------------------------------------------------------------------

FREE: dict[str, Any] = {"owner_token": None, "heartbeat_at": None, "eta_seconds": None}


def finish_cancelled(lease: Lease) -> bool:
    return move(
        lease.job_id,
        come_from=[Status.CANCELLING],
        to=Status.CANCELLED,
        owner=lease.token,
        code="cancelled",
        message="Cancelled.",
        phase="",
        finished_at=timezone.now(),
        **FREE,
    )


def finish_failed(lease: Lease, error: JobFailedError) -> bool:
    return move(
        lease.job_id,
        come_from=[Status.VALIDATING_FILES, Status.RUNNING],
        to=Status.FAILED,
        owner=lease.token,
        **failure(error),
    )


def failure(error: JobFailedError) -> dict[str, Any]:
    """What `move` writes for a job that has failed."""
    return {
        "code": "failed",
        "level": "error",
        "message": error.message,
        "data": {"code": error.code},
        "error_code": error.code,
        "error_message": error.message,
        "error_details": error.details,
        "finished_at": timezone.now(),
        "phase": "",
        **FREE,
    }


def give_back(lease: Lease, *, message: str) -> bool:
    """The owner ends before the job does: it waits again, at its old place, and that was no failed attempt."""
    return _wait_again(lease, code="interrupted", message=message, attempt=F("attempt") - 1)


def lose(lease: Lease, *, attempt: int) -> bool:
    """The work was lost: once more, unless that has happened too often without a new checkpoint."""
    if attempt >= MAX_ATTEMPTS:
        return finish_failed(lease, lost_too_often())
    return _wait_again(lease, code=LOST, message="The process that did the work is gone. It is started again.")


def lost_too_often() -> JobFailedError:
    return JobFailedError(
        LOST,
        f"The work was lost {MAX_ATTEMPTS} times without getting to its next checkpoint: its process or its worker was "
        "killed each time. Look at the memory and the logs of this machine, then resume the job.",
    )


def _wait_again(lease: Lease, *, code: str, message: str, **changes: Any) -> bool:
    for status, waiting in WAITS_AS.items():
        arguments = {"code": code, "message": message, "level": "warning", "phase": "", **FREE, **changes}
        if move(lease.job_id, come_from=[status], to=waiting, owner=lease.token, **arguments):
            return True
    return False


# A lost validation is done again from its start; a lost run goes on from its checkpoint.
WAITS_AS = {Status.VALIDATING_FILES: Status.VALIDATING_FILES, Status.RUNNING: Status.QUEUED}
