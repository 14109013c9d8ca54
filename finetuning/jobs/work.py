"""What a worker does for a job that it has claimed: validate it, or train, register and evaluate."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from chat.errors import InvalidError
from finetuning.conversations.taken_back import without_samples_taken_back
from finetuning.jobs import shutdown
from finetuning.jobs.dispatch import send_waiting
from finetuning.jobs.folders import (
    CHECKPOINTS,
    EVENTS,
    PREFLIGHT,
    RUN,
    SPEC,
    fresh_folder,
    job_folder,
    open_folder,
)
from finetuning.jobs.leases import Heart, claim_run, claim_validation, pass_on_validated
from finetuning.jobs.recorder import Recorder
from finetuning.jobs.specs import make_spec, resolved
from finetuning.jobs.states import (
    ChildLostError,
    JobFailedError,
    Lease,
    LostLeaseError,
    Status,
    add_event,
    finish_cancelled,
    finish_failed,
    give_back,
    lose,
    set_phase,
)
from finetuning.jobs.supervision import CancelledError, ShuttingDownError, Supervision, check
from finetuning.models import DatasetVersion, FineTuningJob, JobMetric
from finetuning.versions import evaluations, registration

logger = logging.getLogger(__name__)

Work = Callable[[FineTuningJob, Lease, Heart], None]


def validate(job_id: UUID) -> bool:
    """Check the job's data in a child process, if nobody else does. Whether this call did. Blocks."""
    return not shutdown.is_requested() and _work(claim_validation(job_id), _validate)


def run(job_id: UUID) -> bool:
    """Train, register and evaluate, if it is the job's turn and nobody else does. Whether this call did. Blocks."""
    return not shutdown.is_requested() and _work(claim_run(job_id), _run)


def _work(lease: Lease | None, work: Work) -> bool:
    if lease is None:
        return False
    try:
        with Heart(lease) as heart:
            job = _read(lease)
            _keep_to(work, job, lease, heart)
    except LostLeaseError:
        logger.warning("job %s was taken over by somebody else", lease.job_id)
    send_waiting()
    return True


def _keep_to(work: Work, job: FineTuningJob, lease: Lease, heart: Heart) -> None:
    """Whatever comes of the work, the row says it. Raises LostLeaseError."""
    try:
        work(job, lease, heart)
        return
    except JobFailedError as error:
        moved = finish_failed(lease, error)
    except InvalidError as error:  # what was there when the job was made is no longer there
        moved = finish_failed(lease, JobFailedError("not_there", error.message))
    except ChildLostError:
        moved = lose(lease, attempt=_read(lease).attempt)
    except ShuttingDownError:
        moved = give_back(lease, message="This worker has to end. The job goes on with the next one.")
    except (CancelledError, LostLeaseError):
        moved = False
    # A wish to cancel that came meanwhile wins, whatever else has come of it.
    if not moved and not finish_cancelled(lease):
        raise LostLeaseError


def _read(lease: Lease) -> FineTuningJob:
    jobs = FineTuningJob.objects.select_related("dataset_version__dataset", "base_version__model__connection")
    job = jobs.filter(pk=lease.job_id, owner_token=lease.token).first()
    if job is None:
        raise LostLeaseError
    return job


# --- validating -------------------------------------------------------------------------------------------------------


def _validate(job: FineTuningJob, lease: Lease, heart: Heart) -> None:
    version = job.dataset_version
    if version.status != DatasetVersion.Status.READY:
        raise JobFailedError("data", f"{version} could not be frozen: {version.error_message or 'see its page'}.")
    spec = make_spec(job, "preflight")
    folder, began = job_folder(job.pk) / PREFLIGHT, timezone.now()
    try:
        fresh_folder(folder)
        report = Supervision(folder, spec, heart, hyperparameters=resolved(job)).run()
    except OSError as error:
        raise JobFailedError("disk", f"The job's folder could not be made: {error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # it shows rows: the report alone is where a withdrawal looks
    check(heart)
    _keep_report(job, lease, report, began)


def _keep_report(job: FineTuningJob, lease: Lease, report: dict[str, Any], began: datetime) -> None:
    errors = report.get("errors")
    with transaction.atomic():
        report = without_samples_taken_back(job.dataset_version, report, since=began)
        if errors:
            FineTuningJob.objects.filter(pk=job.pk, owner_token=lease.token).update(preflight=report)
        else:
            is_passed_on = pass_on_validated(lease, report)
    if errors:
        raise JobFailedError("preflight", _sentence(errors), {"errors": errors, **_suggestion(errors)})
    if not is_passed_on:
        check_again(lease)


def _sentence(errors: list[dict[str, Any]]) -> str:
    first = errors[0]["message"]
    return first if len(errors) == 1 else f"{first} (And {len(errors) - 1} more; see the report.)"


def _suggestion(errors: list[dict[str, Any]]) -> dict[str, Any]:
    """Where a failure of the training itself has it: a retry need not know where there was too little memory."""
    found = (error["suggestion"] for error in errors if error["code"] == "out_of_memory" and error.get("suggestion"))
    return {"suggestion": suggestion} if (suggestion := next(found, None)) else {}


def check_again(lease: Lease) -> None:
    """A move did not work: the row is being cancelled, or no longer ours. Raises which of the two."""
    status = _read(lease).status
    raise CancelledError if status == Status.CANCELLING else LostLeaseError


# --- running ----------------------------------------------------------------------------------------------------------


def _run(job: FineTuningJob, lease: Lease, heart: Heart) -> None:
    if job.result_version_id is None:
        version = registration.find_moved(job)
        result = version or _train(job, lease, heart)
        check(heart)
        set_phase(lease, "registering", "Registering the new version.")
        registration.register(job, result, lease)
        _tidy(job)
        job = _read(lease)
    check(heart)
    set_phase(lease, "evaluating", "Comparing the new version with its base.")
    evaluations.evaluate(job, lease, heart)


def _train(job: FineTuningJob, lease: Lease, heart: Heart) -> dict[str, Any]:
    folder = job_folder(job.pk) / RUN
    try:
        open_folder(folder.parent)
        _forget_withdrawn(job, folder, lease)
    except OSError as error:
        raise JobFailedError("disk", f"The job's folder could not be written: {error}.") from error
    offset = FineTuningJob.objects.values_list("event_offset", flat=True).get(pk=job.pk)
    recorder = Recorder(lease, folder / EVENTS, offset=offset)
    spec = make_spec(job, "train")
    return Supervision(folder, spec, heart, hyperparameters=resolved(job), recorder=recorder).run()


def _forget_withdrawn(job: FineTuningJob, folder: Path, lease: Lease) -> None:
    """Rows were taken out of the data since the run began: its checkpoints have learnt from them, so it begins anew."""
    redacted_at = job.dataset_version.redacted_at
    spec = folder / SPEC
    if redacted_at is None or not spec.exists() or _written_at(spec) > redacted_at:
        return
    shutil.rmtree(folder)
    with transaction.atomic():
        mine = FineTuningJob.objects.filter(pk=job.pk, owner_token=lease.token)
        if not mine.update(event_offset=0, step=0, started_at=timezone.now()):
            raise LostLeaseError
        JobMetric.objects.filter(job_id=job.pk).delete()
        add_event(job.pk, "begun_anew", "Rows were withdrawn from the data, so the training begins anew.")


def _written_at(file: Path) -> datetime:
    return datetime.fromtimestamp(file.stat().st_mtime, tz=UTC)


def _tidy(job: FineTuningJob) -> None:
    """The checkpoints of a run whose result is registered are of no more use, and large."""
    shutil.rmtree(job_folder(job.pk) / RUN / CHECKPOINTS, ignore_errors=True)
    logger.info("job %s: its checkpoints are deleted", job.pk, extra={"at": timezone.now()})
