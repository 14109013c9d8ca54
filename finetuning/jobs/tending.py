"""The tick that keeps jobs moving: due ones begin, abandoned ones go on, what waits gets its task. And tidying up."""

from __future__ import annotations

import logging
import shutil
from datetime import datetime, timedelta

from django.db.models import Q, QuerySet
from django.utils import timezone

from config.file_lock import file_lock
from finetuning.jobs.dispatch import send_waiting
from finetuning.jobs.folders import CHECKPOINTS, LOCK, RUN, job_folder
from finetuning.jobs.process import kill_orphan
from finetuning.jobs.states import (
    FREE,
    LOST,
    MAX_ATTEMPTS,
    SILENT_AFTER,
    STALE_AFTER,
    WAITS_AS,
    Status,
    failure,
    lost_too_often,
    move,
)
from finetuning.models import FineTuningJob

# So long a failed or cancelled job can go on where it was; afterwards it begins anew. Checkpoints are large.
KEPT_FOR = timedelta(days=7)

logger = logging.getLogger(__name__)


def tend() -> None:
    """Repeatable, and safe beside another: every move is a compare-and-set."""
    now = timezone.now()
    begin_due(now)
    take_back_stale(now)
    end_abandoned(now)
    send_waiting()


def begin_due(now: datetime) -> None:
    for job in FineTuningJob.objects.filter(status=Status.SCHEDULED, run_at__lte=now).order_by("run_at"):
        move(
            job.pk,
            come_from=[Status.SCHEDULED],
            to=Status.VALIDATING_FILES,
            owner=None,
            code="due",
            message="Its time has come.",
        )


def take_back_stale(now: datetime) -> None:
    """Their worker is gone: once more, from the last checkpoint, unless that was tried often enough."""
    for job in _silent_since(now, STALE_AFTER).filter(status__in=list(WAITS_AS)):
        is_last = job.attempt >= MAX_ATTEMPTS
        changes = failure(lost_too_often()) if is_last else _waiting_again()
        to = Status.FAILED if is_last else WAITS_AS[Status(job.status)]
        if move(job.pk, come_from=[job.status], to=to, owner=job.owner_token, **changes):
            kill_orphan(job_folder(job.pk))  # it has had the time to save: the next job's slot is its own


def end_abandoned(now: datetime) -> None:
    """Cancelled while their worker died: nobody else says that they have ended, or ends what it has left behind."""
    for job in _silent_since(now, SILENT_AFTER).filter(status=Status.CANCELLING):
        is_over = move(
            job.pk,
            come_from=[Status.CANCELLING],
            to=Status.CANCELLED,
            owner=job.owner_token,
            code="cancelled",
            message="Cancelled.",
            finished_at=now,
            phase="",
            **FREE,
        )
        if is_over:
            kill_orphan(job_folder(job.pk))


def clean_up(now: datetime | None = None) -> None:
    """Checkpoints of jobs that nobody has gone on with. A child never begins where they are just being deleted."""
    ended = FineTuningJob.objects.filter(
        status__in=[Status.FAILED, Status.CANCELLED], finished_at__lt=(now or timezone.now()) - KEPT_FOR
    )
    for job_id in ended.values_list("pk", flat=True):
        folder = job_folder(job_id)
        if not (folder / RUN / CHECKPOINTS).is_dir():
            continue
        with file_lock(folder / LOCK) as is_free:
            if is_free and ended.filter(pk=job_id).exists():
                shutil.rmtree(folder / RUN / CHECKPOINTS, ignore_errors=True)
                logger.info("job %s: its checkpoints are deleted", job_id)


def _silent_since(now: datetime, patience: timedelta) -> QuerySet[FineTuningJob]:
    silent = Q(heartbeat_at__lt=now - patience) | Q(heartbeat_at=None)
    return FineTuningJob.objects.filter(silent, owner_token__isnull=False)


def _waiting_again() -> dict[str, object]:
    message = "Nothing has been heard of its worker. It is started again."
    return {"code": LOST, "message": message, "level": "warning", "phase": "", **FREE}
