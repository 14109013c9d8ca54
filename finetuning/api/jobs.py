"""`/api/jobs`: fine-tuning jobs, their queue, logs and metrics. For curators."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router, Schema, Status
from pydantic import Field

from chat.cursors import decode_cursor, encode_cursor
from chat.errors import InvalidError, NotFoundError
from config.api_schema import RequestSchema
from finetuning import jobs
from finetuning.access import check_curator
from finetuning.datasets import find_dataset, get_dataset, get_version
from finetuning.jobs.selectors import MAX_EVENTS, MAX_METRICS, MAX_PAGE_SIZE, QueueState
from finetuning.models import Dataset, FineTuningJob, JobEvent, JobMetric

router = Router()


class JobFailure(Schema):
    code: str
    message: str
    details: dict[str, Any] = Field(description="`suggestion`: hyperparameters that may help.")


class Job(Schema):
    id: UUID
    name: str
    status: str = Field(
        description="scheduled, validating_files, queued, running, cancelling, succeeded, failed or cancelled."
    )
    phase: str = Field(description="Within running: loading, measuring, training, saving, registering, evaluating.")
    is_held: bool = Field(description="It waits until somebody starts it.")
    method: str
    base: str
    base_version: str
    target: str
    dataset: int
    dataset_version: int
    hyperparameters: dict[str, Any] = Field(description="Those that differ from the method's defaults.")
    system_prompt: str
    sample_prompts: list[str]
    priority: int
    run_at: datetime | None
    attempt: int
    step: int
    total_steps: int
    eta_seconds: float | None
    device: str
    precision: str
    training_seconds: float
    trained_tokens: int
    result_version: str | None = Field(description="As slug@number.")
    schedule: int | None
    retry_of: UUID | None
    error: JobFailure | None
    created_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


class JobList(Schema):
    items: list[Job]
    next_cursor: str | None = Field(description="Give it as `cursor` to get the next page; null: this is the last.")


class JobQuery(Schema):
    status: str = ""
    cursor: str | None = None
    limit: int = Field(30, ge=1, le=MAX_PAGE_SIZE)


class NewJob(RequestSchema):
    method: str = Field(examples=["lora_sft"], description="lora_sft, full_sft, dpo, kto, classification, masked_lm.")
    base: str = Field(examples=["smollm2-135m-instruct"], description="slug, slug@3 or slug@alias.")
    dataset: int | str = Field(description="Its id or its name.", examples=["Support answers"])
    dataset_version: int | None = Field(None, ge=1, le=2**31 - 1, description="Null: the newest, frozen if need be.")
    target: str = Field("", description="Slug of the model that gets the new version; empty: suggested.")
    name: str = ""
    hyperparameters: dict[str, Any] = Field({}, examples=[{"num_train_epochs": 2}])
    system_prompt: str = ""
    sample_prompts: list[str] = []
    run_at: datetime | None = Field(None, description="Not before this moment.", examples=["2031-01-31T02:00:00Z"])
    hold: bool = Field(False, description="Check the data, then wait until it is started.")
    priority: int = 0
    request_key: str = Field("", description="The same one again gives the same job.")


class Retry(RequestSchema):
    hyperparameters: dict[str, Any] | None = Field(
        None, description="Changed ones. Null: those that the failure suggests."
    )


class JobPatch(RequestSchema):
    priority: int = Field(examples=[1], description="Higher goes first.")


class Event(Schema):
    id: int
    level: str
    code: str
    message: str
    data: dict[str, Any]
    created_at: datetime


class EventList(Schema):
    items: list[Event]
    next_after: int = Field(description="Give it as `after` to get what comes then.")
    next_cursor: str | None = Field(description="The same as a `cursor`; null when nothing more is here yet.")


class Metric(Schema):
    step: int
    epoch: float | None
    loss: float | None
    learning_rate: float | None
    grad_norm: float | None
    tokens_per_second: float | None
    evaluation: dict[str, Any] | None = Field(description="Held-out metrics after this step; step 0 is the base.")


class MetricList(Schema):
    items: list[Metric]
    next_after: int
    next_cursor: str | None


class Preflight(Schema):
    report: dict[str, Any] | None = Field(description="Null while the data is still being checked.")


class QueueChange(RequestSchema):
    paused: bool


class Queue(Schema):
    paused: bool
    paused_at: datetime | None
    slots: int = Field(description="How many trainings run at once.")
    has_worker: bool = Field(description="Whether a training worker is alive.")
    running: list[UUID]
    waiting: list[UUID] = Field(description="In the order in which they will start.")


@router.get("", response=JobList, summary="List the jobs")
def list_jobs(request: HttpRequest, query: Query[JobQuery]) -> dict[str, Any]:
    page = jobs.list_jobs(user=request.auth, status=query.status, cursor=query.cursor, limit=query.limit)
    return {"items": [job_to_dict(job) for job in page.items], "next_cursor": page.next_cursor}


@router.post("", response={201: Job}, summary="Make a job")
def create_job(request: HttpRequest, new: NewJob) -> Status:
    """Its data is checked first, in the background. Whatever can be known to be wrong is refused at once."""
    values = new.dict(exclude={"dataset", "dataset_version", "hold"})
    dataset = find_the_dataset(request, new.dataset)
    version = get_version(dataset, new.dataset_version) if new.dataset_version else None
    if new.run_at is not None and new.run_at.tzinfo is None:
        raise InvalidError("run_at needs a time zone, as in 2030-01-31T02:00:00Z.", run_at="Add a time zone.")
    job = jobs.create_job(user=request.auth, dataset=dataset, dataset_version=version, is_held=new.hold, **values)
    return Status(201, job_to_dict(jobs.get_job(job.pk, user=request.auth)))


@router.get("/queue", response=Queue, summary="What runs and what waits")
def get_queue(request: HttpRequest) -> dict[str, Any]:
    check_curator(request.auth)
    return queue_to_dict(jobs.queue_state())


@router.put("/queue", response=Queue, summary="Pause the queue, or open it again")
def change_queue(request: HttpRequest, change: QueueChange) -> dict[str, Any]:
    """While it is paused nothing new starts; what runs goes on."""
    check_curator(request.auth)
    if change.paused:
        jobs.pause_queue(request.auth)
    else:
        jobs.open_queue()
    return queue_to_dict(jobs.queue_state())


@router.get("/{uuid:job_id}", response=Job, summary="Read a job")
def get_job(request: HttpRequest, job_id: UUID) -> dict[str, Any]:
    return job_to_dict(jobs.get_job(job_id, user=request.auth))


@router.patch("/{uuid:job_id}", response=Job, summary="Move a job in the queue")
def change_job(request: HttpRequest, job_id: UUID, change: JobPatch) -> dict[str, Any]:
    return _after(request, jobs.set_priority(jobs.get_job(job_id, user=request.auth), change.priority))


@router.post("/{uuid:job_id}/cancel", response=Job, summary="Cancel a job")
def cancel_job(request: HttpRequest, job_id: UUID) -> dict[str, Any]:
    """In any state, as often as you like; what runs has ended ten seconds later."""
    return _after(request, jobs.cancel_job(jobs.get_job(job_id, user=request.auth)))


@router.post("/{uuid:job_id}/resume", response=Job, summary="Go on with a job that was cancelled or has failed")
def resume_job(request: HttpRequest, job_id: UUID) -> dict[str, Any]:
    """From its last checkpoint, with the same settings."""
    return _after(request, jobs.resume_job(jobs.get_job(job_id, user=request.auth)))


@router.post("/{uuid:job_id}/start", response=Job, summary="Start a job that was held, or is scheduled for later")
def start_job(request: HttpRequest, job_id: UUID) -> dict[str, Any]:
    return _after(request, jobs.start_job(jobs.get_job(job_id, user=request.auth)))


@router.post("/{uuid:job_id}/retry", response={201: Job}, summary="Make a new job like one that has ended")
def retry_job(request: HttpRequest, job_id: UUID, retry: Retry) -> Status:
    job = jobs.get_job(job_id, user=request.auth)
    again = jobs.retry_job(job, user=request.auth, hyperparameters=retry.hyperparameters)
    return Status(201, _after(request, again))


@router.get("/{uuid:job_id}/preflight", response=Preflight, summary="Read what the check of the data found")
def get_preflight(request: HttpRequest, job_id: UUID) -> dict[str, Any]:
    return {"report": jobs.get_job(job_id, user=request.auth).preflight}


@router.get("/{uuid:job_id}/events", response=EventList, summary="Read the job's log")
def list_events(
    request: HttpRequest,
    job_id: UUID,
    after: int = Query(0, ge=0, le=2**63 - 1),
    limit: int = Query(100, ge=1, le=MAX_EVENTS),
    cursor: str | None = None,
) -> dict[str, Any]:
    """Oldest first, from behind `after`."""
    after = _place_of(cursor) if cursor else after
    events = jobs.list_events(jobs.get_job(job_id, user=request.auth), after=after, limit=limit)
    items = [event_to_dict(event) for event in events]
    return _stretch(items, next_after=events[-1].pk if events else after, limit=limit)


@router.get("/{uuid:job_id}/metrics", response=MetricList, summary="Read the job's figures, step by step")
def list_metrics(
    request: HttpRequest,
    job_id: UUID,
    after: int = Query(-1, ge=-1, le=2**31 - 1),
    limit: int = Query(MAX_METRICS, ge=1, le=MAX_METRICS),
    cursor: str | None = None,
) -> dict[str, Any]:
    """A resumed run may do steps again: then read from the step it goes on after."""
    after = _place_of(cursor) if cursor else after
    metrics = jobs.list_metrics(jobs.get_job(job_id, user=request.auth), after_step=after, limit=limit)
    items = [metric_to_dict(metric) for metric in metrics]
    return _stretch(items, next_after=metrics[-1].step if metrics else after, limit=limit)


def _place_of(cursor: str) -> int:
    """Raises InvalidError."""
    (place,) = decode_cursor(cursor, int)
    if not -1 <= place < 2**63:
        raise InvalidError("The cursor is not valid. Begin again without one.")
    return place


def _stretch(items: list[dict[str, Any]], *, next_after: int, limit: int) -> dict[str, Any]:
    more = encode_cursor(next_after) if len(items) == limit else None
    return {"items": items, "next_after": next_after, "next_cursor": more}


def find_the_dataset(request: HttpRequest, name: int | str) -> Dataset:
    """By its id or by its name. What a body names and is not there is a wrong value, not a wrong address."""
    try:
        if isinstance(name, int):
            return get_dataset(name, user=request.auth)
        return find_dataset(name, user=request.auth)
    except NotFoundError as error:
        raise InvalidError(f"There is no dataset {name!r}.", dataset="There is no such dataset.") from error


def _after(request: HttpRequest, job: FineTuningJob) -> dict[str, Any]:
    return job_to_dict(jobs.get_job(job.pk, user=request.auth))


SAME = (
    *("id", "name", "status", "phase", "is_held", "method", "base", "target", "hyperparameters", "system_prompt"),
    *("sample_prompts", "priority", "run_at", "attempt", "step", "total_steps", "eta_seconds", "device", "precision"),
    *("training_seconds", "trained_tokens", "created_at", "queued_at", "started_at", "finished_at"),
)


def job_to_dict(job: FineTuningJob) -> dict[str, Any]:
    failed = {"code": job.error_code, "message": job.error_message, "details": job.error_details}
    return {
        **{name: getattr(job, name) for name in SAME},
        "base_version": str(job.base_version),
        "dataset": job.dataset_version.dataset_id,
        "dataset_version": job.dataset_version.number,
        "result_version": str(job.result_version) if job.result_version else None,
        "schedule": job.schedule_id,
        "retry_of": job.retry_of_id,
        "error": failed if job.error_code else None,
    }


def event_to_dict(event: JobEvent) -> dict[str, Any]:
    return {name: getattr(event, name) for name in ("id", "level", "code", "message", "data", "created_at")}


def metric_to_dict(metric: JobMetric) -> dict[str, Any]:
    names = ("step", "epoch", "loss", "learning_rate", "grad_norm", "tokens_per_second", "evaluation")
    return {name: getattr(metric, name) for name in names}


def queue_to_dict(state: QueueState) -> dict[str, Any]:
    return {
        "paused": state.is_paused,
        "paused_at": state.paused_at,
        "slots": state.slots,
        "has_worker": state.has_worker,
        "running": [job.pk for job in state.running],
        "waiting": [job.pk for job in state.waiting],
    }
