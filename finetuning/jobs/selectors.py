"""What curators see of jobs and of the queue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from django.db.models import Q, QuerySet

from chat.cursors import decode_cursor, encode_cursor
from chat.errors import InvalidError, NotFoundError
from config.app_settings import get_settings
from finetuning.access import check_curator
from finetuning.jobs.dispatch import has_worker
from finetuning.jobs.leases import waiting_jobs
from finetuning.jobs.states import Status
from finetuning.models import FineTuningJob, JobEvent, JobMetric, TrainingQueue

if TYPE_CHECKING:
    from accounts.models import User

MAX_PAGE_SIZE = 100
MAX_EVENTS = 500
MAX_METRICS = 5_000


@dataclass(frozen=True)
class JobPage:
    items: list[FineTuningJob]
    next_cursor: str | None


@dataclass(frozen=True)
class QueueState:
    """`waiting` is in the order in which the jobs will start; `has_worker`: somebody is there to do them."""

    paused_at: datetime | None
    paused_by: str | None
    slots: int
    has_worker: bool
    running: list[FineTuningJob]
    waiting: list[FineTuningJob]

    @property
    def is_paused(self) -> bool:
        return self.paused_at is not None


def _jobs() -> QuerySet[FineTuningJob]:
    return FineTuningJob.objects.select_related(
        "dataset_version__dataset",
        "base_version__model",
        "result_version__model",
        "created_by",
        "retry_of",
        "schedule",
    )


def list_jobs(*, user: User | None, status: str = "", cursor: str | None = None, limit: int = 30) -> JobPage:
    """Newest first. Raises ForbiddenError, and InvalidError for an unknown status or cursor."""
    _check(user)
    jobs = _jobs().order_by("-created_at", "-pk")
    if status:
        if status not in Status.values:
            raise InvalidError(f"There is no status {status!r}; there are {', '.join(Status.values)}.")
        jobs = jobs.filter(status=status)
    if cursor:
        created_at, pk = decode_cursor(cursor, datetime, UUID)
        jobs = jobs.filter(Q(created_at__lt=created_at) | Q(created_at=created_at, pk__lt=pk))
    limit = min(limit, MAX_PAGE_SIZE)
    items = list(jobs[: limit + 1])
    has_more, items = len(items) > limit, items[:limit]
    return JobPage(items, encode_cursor(items[-1].created_at, items[-1].pk) if has_more else None)


def get_job(job_id: UUID | str, *, user: User | None) -> FineTuningJob:
    """Raises ForbiddenError, NotFoundError."""
    _check(user)
    job = _jobs().filter(pk=job_id).first()
    if job is None:
        raise NotFoundError("There is no such job.")
    return job


def list_events(job: FineTuningJob, *, after: int = 0, limit: int = 100) -> list[JobEvent]:
    """The log behind this event, oldest first."""
    return list(job.events.filter(pk__gt=after).order_by("pk")[: min(limit, MAX_EVENTS)])


def list_metrics(job: FineTuningJob, *, after_step: int = -1, limit: int = MAX_METRICS) -> list[JobMetric]:
    return list(job.metrics.filter(step__gt=after_step).order_by("step")[: min(limit, MAX_METRICS)])


def queue_state() -> QueueState:
    queue = TrainingQueue.objects.select_related("paused_by").filter(paused_at__isnull=False).first()
    busy = (Status.RUNNING, Status.CANCELLING)
    return QueueState(
        paused_at=queue.paused_at if queue else None,
        paused_by=queue.paused_by.name if queue and queue.paused_by else None,
        slots=get_settings().training_workers,
        has_worker=has_worker("training"),
        running=list(_jobs().filter(status__in=busy).order_by("started_at")),
        waiting=list(waiting_jobs().select_related("dataset_version__dataset", "base_version__model", "created_by")),
    )


def _check(user: User | None) -> None:
    if user is not None:
        check_curator(user)
