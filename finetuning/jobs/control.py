"""What people do with a job and with the queue. Any state, any number of times: each is safe to repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils import timezone

from chat.errors import BusyError, InvalidError
from finetuning.jobs.creation import check_priority, create_job
from finetuning.jobs.dispatch import send_waiting
from finetuning.jobs.folders import job_folder
from finetuning.jobs.leases import QUEUE_ID
from finetuning.jobs.process import kill_orphan
from finetuning.jobs.specs import EVALUATION_BATCH
from finetuning.jobs.states import FREE, Status, is_silent, move
from finetuning.live.nudges import announce_job, announce_queue
from finetuning.models import FineTuningJob, TrainingQueue
from finetuning.models.jobs import ENDED_JOBS

if TYPE_CHECKING:
    from accounts.models import User

TRIES = 20
NOT_ENDED = [status for status in Status if status not in ENDED_JOBS]


def cancel_job(job: FineTuningJob) -> FineTuningJob:
    """In any state; of one that has ended, or is being cancelled, nothing changes. Returns the row as it is then."""
    for _ in range(TRIES):
        job = _read(job)
        if job.has_ended or job.status == Status.CANCELLING or _cancel_once(job):
            announce_queue()
            return _read(job)
    raise BusyError("The job is changing its state just now; try again.")


def _cancel_once(job: FineTuningJob) -> bool:
    """Whoever works for it ends it; without anybody it has ended at once."""
    now = timezone.now()
    if is_silent(job, now=now):
        changes = {"cancel_requested_at": now, "finished_at": now, "phase": "", **FREE}
        to, code, message = Status.CANCELLED, "cancelled", "Cancelled."
    else:
        changes = {"cancel_requested_at": now}
        to, code, message = Status.CANCELLING, "cancelling", "Asked to end."
    owner = job.owner_token
    moved = move(job.pk, come_from=[job.status], to=to, owner=owner, code=code, message=message, **changes)
    if moved and to == Status.CANCELLED and owner is not None:
        kill_orphan(job_folder(job.pk))
    return moved


def start_job(job: FineTuningJob) -> FineTuningJob:
    """One that was held, or that waits for its time, goes its way now. Raises InvalidError for one that has ended."""
    job = _read(job)
    if job.has_ended:
        raise InvalidError("This job has ended; resume it, or make a new one.")
    held = FineTuningJob.objects.filter(pk=job.pk, is_held=True)
    held.exclude(status__in=ENDED_JOBS).update(is_held=False)
    move(
        job.pk,
        come_from=[Status.SCHEDULED],
        to=Status.VALIDATING_FILES,
        owner=None,
        code="started_early",
        message="Started before its time.",
        run_at=None,
    )
    return _let_go(job)


def resume_job(job: FineTuningJob) -> FineTuningJob:
    """One that was cancelled or has failed goes on from its last checkpoint, with the same settings.

    One whose version is there is only evaluated; where that took too much memory, in smaller batches. Raises
    InvalidError for one that succeeded.
    """
    job = _read(job)
    if job.status == Status.SUCCEEDED:
        raise InvalidError("This job has succeeded; there is nothing to resume.")
    is_checked = job.preflight is not None and not job.preflight.get("errors")
    move(
        job.pk,
        come_from=[Status.CANCELLED, Status.FAILED],
        to=Status.QUEUED if is_checked else Status.VALIDATING_FILES,
        owner=None,
        code="resume",
        message="Resumed.",
        queued_at=timezone.now() if is_checked else None,
        attempt=0,
        is_held=False,
        cancel_requested_at=None,
        finished_at=None,
        error_code="",
        error_message="",
        error_details={},
        hyperparameters={**job.hyperparameters, **_smaller_evaluation(job)},
    )
    return _let_go(job)


def _smaller_evaluation(job: FineTuningJob) -> dict[str, Any]:
    """The only setting that an ended training allows to change: nothing was learned with it."""
    if job.result_version_id is None or job.error_code != "out_of_memory":
        return {}
    suggestion = job.error_details.get("suggestion") or {}
    return {EVALUATION_BATCH: suggestion[EVALUATION_BATCH]} if EVALUATION_BATCH in suggestion else {}


def retry_job(job: FineTuningJob, *, user: User | None, hyperparameters: dict[str, Any] | None = None) -> FineTuningJob:
    """A new job like this one, with some hyperparameters changed; without any, with those its failure suggests.

    Pressed twice it is the same new job, until that one has ended. Raises InvalidError for one that has not ended.
    """
    if not _read(job).has_ended:
        raise InvalidError("This job has not ended yet; cancel it first.")
    changed = job.error_details.get("suggestion", {}) if hyperparameters is None else hyperparameters
    ended = job.retries.filter(status__in=ENDED_JOBS).count()
    return create_job(
        user=user,
        method=job.method,
        base=str(job.base_version),
        target=job.target,
        dataset_version=job.dataset_version,
        hyperparameters={**job.hyperparameters, **changed},
        system_prompt=job.system_prompt,
        sample_prompts=job.sample_prompts,
        name=job.name,
        priority=job.priority,
        request_key=f"retry-{job.pk.hex}-{ended}",
        schedule=job.schedule,
        retry_of=job,
    )


def set_priority(job: FineTuningJob, priority: int) -> FineTuningJob:
    """Higher goes first. Raises InvalidError."""
    check_priority(priority)
    if not FineTuningJob.objects.filter(pk=job.pk, status__in=NOT_ENDED).update(priority=priority):
        raise InvalidError("This job has ended.")
    announce_queue()
    return _let_go(job)


def pause_queue(user: User | None) -> TrainingQueue:
    """Nothing new starts; what runs goes on."""
    return _set_paused(paused_at=timezone.now(), paused_by=user)


def open_queue() -> TrainingQueue:
    queue = _set_paused(paused_at=None, paused_by=None)
    transaction.on_commit(send_waiting)
    return queue


def _set_paused(**columns: Any) -> TrainingQueue:
    queue, _ = TrainingQueue.objects.update_or_create(pk=QUEUE_ID, defaults=columns)
    announce_queue()
    return queue


def _let_go(job: FineTuningJob) -> FineTuningJob:
    announce_job(job.pk)
    transaction.on_commit(send_waiting)
    return _read(job)


def _read(job: FineTuningJob) -> FineTuningJob:
    return FineTuningJob.objects.select_related("dataset_version__dataset", "base_version__model").get(pk=job.pk)
