"""What an open page about jobs has not seen yet. Reads only; checked anew each time whether the person still may."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Count, F, Max, Q, QuerySet

from chat.errors import ForbiddenError, NotFoundError
from chat.events import ServerEvent
from chat.replies.start import Asker, get_asker
from finetuning.access import check_curator
from finetuning.live.frames import JobEvents, JobMetrics, JobUpdated, QueueUpdated
from finetuning.models import FineTuningJob, JobEvent, JobMetric, TrainingQueue
from finetuning.models.jobs import ENDED_JOBS

# A chart has about a thousand pixels: of a longer history every n-th step is enough, and every evaluation.
MAX_POINTS = 2_000
METRICS_PER_FRAME = 500
EVENTS_PER_FRAME = 100
# Of a longer log only the newest lines are shown; the API pages through all of it.
MAX_EVENTS = 500
MAX_QUEUE = 200
METRIC_FIELDS = ("step", "epoch", "loss", "learning_rate", "grad_norm", "tokens_per_second", "evaluation")


@dataclass(frozen=True)
class Seen:
    """What one socket has been sent."""

    after_event: int = 0
    after_step: int = -1
    metric: dict[str, Any] | None = None
    state: dict[str, Any] | None = None


class SignedOutError(ForbiddenError):
    """The key or the sign-in no longer holds."""


def check_asker(asker: Asker) -> None:
    """Raises SignedOutError, or ForbiddenError for somebody who may not curate."""
    try:
        user = get_asker(asker)
    except ForbiddenError as error:
        raise SignedOutError(error.message) from error
    check_curator(user)


def read_news(asker: Asker, job_id: UUID | None, seen: Seen) -> tuple[list[ServerEvent], Seen]:
    """The frames that bring a page up to date: of a job, or of the queue. Raises ForbiddenError, NotFoundError."""
    check_asker(asker)
    return read_queue(seen) if job_id is None else read_job(job_id, seen)


def read_job(job_id: UUID, seen: Seen) -> tuple[list[ServerEvent], Seen]:
    """Raises NotFoundError."""
    job = find_job(job_id)
    state = job_to_dict(job)
    frames: list[ServerEvent] = [] if state == seen.state else [JobUpdated(job=state)]
    # A resumed run does some steps again: a page that is ahead of it is sent them again.
    after = min(seen.after_step, job.step)
    metrics = [metric for metric in list_points(job_id, after) if metric != seen.metric]
    events = list_news(job_id, seen.after_event)
    frames += [JobMetrics(job_id=str(job_id), metrics=part) for part in _parts(metrics, METRICS_PER_FRAME)]
    frames += [JobEvents(job_id=str(job_id), events=part) for part in _parts(events, EVENTS_PER_FRAME)]
    seen = replace(
        seen,
        state=state,
        metric=metrics[-1] if metrics else seen.metric,
        after_step=metrics[-1]["step"] if metrics else after,
        after_event=events[-1]["id"] if events else seen.after_event,
    )
    return frames, seen


def read_queue(seen: Seen) -> tuple[list[ServerEvent], Seen]:
    state = queue_to_dict()
    frames: list[ServerEvent] = [] if state == seen.state else [QueueUpdated(queue=state)]
    return frames, replace(seen, state=state)


def find_job(job_id: UUID) -> FineTuningJob:
    job = FineTuningJob.objects.select_related("result_version").filter(pk=job_id).first()
    if job is None:
        raise NotFoundError("There is no such job.")
    return job


def list_points(job_id: UUID, after_step: int = -1) -> list[dict[str, Any]]:
    """The metrics from `after_step` on: its own row too, an evaluation is added to it later."""
    rows = JobMetric.objects.filter(job_id=job_id, step__gte=after_step).order_by("step")
    return [metric_to_dict(metric) for metric in _thinned(rows)]


def _thinned(rows: QuerySet[JobMetric]) -> QuerySet[JobMetric]:
    size = rows.aggregate(count=Count("pk"), last=Max("step"))
    if size["count"] <= MAX_POINTS:
        return rows
    stride = -(-size["count"] // MAX_POINTS)
    kept = Q(rest=0) | Q(evaluation__isnull=False) | Q(step=size["last"])
    return rows.alias(rest=F("step") % stride).filter(kept)


def list_news(job_id: UUID, after_event: int = 0) -> list[dict[str, Any]]:
    """The newest lines of the log behind `after_event`, oldest first."""
    newest = JobEvent.objects.filter(job_id=job_id, pk__gt=after_event).order_by("-pk")[:MAX_EVENTS]
    return [event_to_dict(event) for event in reversed(newest)]


def _parts(items: list[dict[str, Any]], size: int) -> list[list[dict[str, Any]]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


# --- dicts ------------------------------------------------------------------------------------------------------------


def job_to_dict(job: FineTuningJob) -> dict[str, Any]:
    """What changes while a page about it is open. `revision` is another when more than figures has changed."""
    return {
        "id": str(job.pk),
        "status": job.status,
        "status_label": job.get_status_display(),
        "phase": job.phase,
        "has_ended": job.has_ended,
        "is_held": job.is_held,
        "attempt": job.attempt,
        "step": job.step,
        "total_steps": job.total_steps,
        "eta_seconds": job.eta_seconds,
        "device": job.device,
        "precision": job.precision,
        "training_seconds": job.training_seconds,
        "trained_tokens": job.trained_tokens,
        "priority": job.priority,
        "run_at": _moment(job.run_at),
        "started_at": _moment(job.started_at),
        "finished_at": _moment(job.finished_at),
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
        "revision": revision_of(job),
    }


def revision_of(job: FineTuningJob) -> str:
    evaluations = ",".join(f"{pk}{status}" for pk, status in job.evaluations.order_by("pk").values_list("pk", "status"))
    marks = (
        job.status,
        job.phase,
        int(job.is_held),
        int(job.preflight is not None),
        int(job.cancel_requested_at is not None),
        job.error_code,
        job.result_version_id or "",
        evaluations,
    )
    return "|".join(map(str, marks))


def metric_to_dict(metric: JobMetric) -> dict[str, Any]:
    return {name: getattr(metric, name) for name in METRIC_FIELDS}


def event_to_dict(event: JobEvent) -> dict[str, Any]:
    return {
        "id": event.pk,
        "level": event.level,
        "code": event.code,
        "message": event.message,
        "data": event.data,
        "created_at": _moment(event.created_at),
    }


def queue_to_dict() -> dict[str, Any]:
    """`revision` is another when a job came, went or moved; then the list is read anew."""
    paused = TrainingQueue.objects.filter(paused_at__isnull=False).exists()
    fields = ("id", "status", "phase", "step", "total_steps", "eta_seconds", "priority", "is_held", "run_at")
    rows = list(FineTuningJob.objects.exclude(status__in=ENDED_JOBS).order_by("created_at").values(*fields)[:MAX_QUEUE])
    newest_end = FineTuningJob.objects.aggregate(at=Max("finished_at"))["at"]
    marks = [f"{row['id'].hex}{row['status']}{row['priority']}{row['is_held']}{row['run_at']}" for row in rows]
    labels = dict(FineTuningJob.Status.choices)
    changed = [
        {"id": str(row["id"]), "status_label": labels[row["status"]], "run_at": _moment(row["run_at"])} for row in rows
    ]
    jobs = [{**row, **more} for row, more in zip(rows, changed, strict=True)]
    return {"is_paused": paused, "jobs": jobs, "revision": f"{paused}|{newest_end}|{'|'.join(marks)}"}


def _moment(value: datetime | None) -> str | None:
    return value.isoformat() if value else None
