"""What the pages about jobs list: the queue as it will be worked off, and what has ended. Each in a few queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Coalesce

from accounts.models import User
from chat.cursors import decode_cursor, encode_cursor
from finetuning.access import check_curator
from finetuning.jobs.selectors import QueueState, queue_state
from finetuning.live.feed import MAX_QUEUE, queue_to_dict
from finetuning.models import FineTuningJob
from finetuning.models.jobs import ENDED_JOBS

PAGE = 20
Status = FineTuningJob.Status
RELATED = ("dataset_version__dataset", "base_version__model", "result_version__model", "created_by", "schedule")


@dataclass(frozen=True)
class Queue:
    """Every job that has not ended, where it stands; `state.waiting` in the order in which they will start."""

    revision: str
    state: QueueState
    checking: Sequence[FineTuningJob]
    held: Sequence[FineTuningJob]
    scheduled: Sequence[FineTuningJob]

    @property
    def is_empty(self) -> bool:
        return not (self.state.running or self.state.waiting or self.checking or self.held or self.scheduled)


@dataclass(frozen=True)
class EndedPage:
    jobs: Sequence[FineTuningJob]
    next_cursor: str | None


def get_queue(*, user: User) -> Queue:
    check_curator(user)
    revision = queue_to_dict()["revision"]  # read first: what changes meanwhile makes the page look again
    aside = Q(status__in=[Status.SCHEDULED, Status.VALIDATING_FILES]) | Q(status=Status.QUEUED, is_held=True)
    others = FineTuningJob.objects.filter(aside).select_related(*RELATED).defer("preflight")
    by_status: dict[str, list[FineTuningJob]] = {}
    for job in others.order_by(Coalesce("run_at", "created_at"), "pk")[:MAX_QUEUE]:
        by_status.setdefault(job.status, []).append(job)
    return Queue(
        revision,
        queue_state(),
        checking=by_status.get(Status.VALIDATING_FILES, []),
        held=by_status.get(Status.QUEUED, []),
        scheduled=by_status.get(Status.SCHEDULED, []),
    )


def list_ended(*, user: User, status: str = "", cursor: str | None = None) -> EndedPage:
    """The newest first. Raises InvalidError for a cursor that somebody made up."""
    check_curator(user)
    jobs = FineTuningJob.objects.filter(status__in=[status] if status in ENDED_JOBS else ENDED_JOBS)
    jobs = jobs.select_related(*RELATED).defer("preflight").annotate(ended_at=Coalesce("finished_at", "created_at"))
    if cursor:
        at, pk = decode_cursor(cursor, datetime, UUID)
        jobs = jobs.filter(Q(ended_at__lt=at) | Q(ended_at=at, pk__lt=pk))
    found = list(jobs.order_by("-ended_at", "-pk")[: PAGE + 1])
    last = found[PAGE - 1] if len(found) > PAGE else None
    return EndedPage(found[:PAGE], encode_cursor(last.ended_at, last.pk) if last else None)


def reorder(waiting: Sequence[FineTuningJob], job_id: UUID, *, places: int) -> dict[FineTuningJob, int]:
    """The priorities to set so that this job goes `places` towards the front, or back when negative.

    `waiting` is in the order of the queue: by priority, then by age. No other job is raised more than it must be.
    """
    here = next((number for number, job in enumerate(waiting) if job.pk == job_id), None)
    if here is None:
        return {}
    order = list(waiting)
    moved = order.pop(here)
    order.insert(min(max(here - places, 0), len(order)), moved)
    changed: dict[FineTuningJob, int] = {}
    needed = min(job.priority for job in order)
    for job, before in zip(reversed(order), [*reversed(order[:-1]), None], strict=True):
        priority = needed if job is moved else max(job.priority, needed)
        if priority != job.priority:
            changed[job] = priority
        needed = priority if before is None or _age(before) < _age(job) else priority + 1
    return changed


def _age(job: FineTuningJob) -> tuple[datetime, UUID]:
    return job.queued_at or job.created_at, job.pk
