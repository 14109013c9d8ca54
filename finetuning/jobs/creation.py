"""Makes jobs: everything that can be known to be wrong is said now, in a sentence, and not hours later."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from chat.errors import InvalidError
from chat.text import check_text
from finetuning.access import check_curator
from finetuning.jobs.bases import check_kind, check_target, find_base, parse_method, suggest_target
from finetuning.jobs.data import ensure_version
from finetuning.jobs.dispatch import send_waiting
from finetuning.jobs.states import Status, add_event
from finetuning.live.nudges import announce_job, announce_queue
from finetuning.models import Dataset, DatasetVersion, FineTuningJob, Schedule
from finetuning.training.hyperparameters import Hyperparameters, Method

if TYPE_CHECKING:
    from accounts.models import User

MAX_NAME = 200
MAX_SYSTEM_PROMPT = 20_000
MAX_SAMPLE_PROMPTS = 10
MAX_SAMPLE_CHARS = 4_000
MAX_KEY = 64
PRIORITIES = (-1000, 1000)


def create_job(
    *,
    user: User | None,
    method: str,
    base: str,
    target: str = "",
    dataset_version: DatasetVersion | None = None,
    dataset: Dataset | None = None,
    hyperparameters: dict[str, Any] | None = None,
    system_prompt: str = "",
    sample_prompts: Sequence[str] = (),
    name: str = "",
    run_at: datetime | None = None,
    is_held: bool = False,
    priority: int = 0,
    request_key: str = "",
    schedule: Schedule | None = None,
    retry_of: FineTuningJob | None = None,
) -> FineTuningJob:
    """A job on a frozen version; without one, on the dataset's newest, frozen first if it is not up to date.

    `request_key`: the same one by the same person again gives the same job. `user` None is the machine's operator.
    Raises ForbiddenError, or InvalidError with what is wrong.
    """
    if user is not None:
        check_curator(user)
    request_key = check_text(request_key, limit=MAX_KEY, field="request_key", required=False)
    if found := _find_sent_twice(user, request_key):
        return found
    chosen = parse_method(method)
    base_version = find_base(base, chosen, user=user)
    recipe = {
        "method": chosen.value,
        "base": base,
        "system_prompt": check_system_prompt(system_prompt),
        "sample_prompts": check_prompts(sample_prompts),
        "priority": check_priority(priority),
    }
    version = _choose_version(dataset_version, dataset, chosen, user=user)
    target = target or suggest_target(base, version.dataset, method=chosen)
    check_target(target, chosen)
    job = FineTuningJob(
        **recipe,
        target=target,
        hyperparameters=check_hyperparameters(hyperparameters or {}, chosen, rows=version.counts.get("train", 0)),
        name=check_text(name, limit=MAX_NAME, field="name", required=False) or f"{target} on {version.dataset.name}",
        status=Status.SCHEDULED if run_at and run_at > timezone.now() else Status.VALIDATING_FILES,
        dataset_version=version,
        base_version=base_version,
        run_at=run_at,
        is_held=is_held,
        request_key=request_key,
        schedule=schedule,
        retry_of=retry_of,
        created_by=user,
    )
    return _keep(job)


def _keep(job: FineTuningJob) -> FineTuningJob:
    """The other of two clicks may have been quicker since we looked."""
    job.name = job.name[:MAX_NAME]
    try:
        with transaction.atomic():
            job.save(force_insert=True)
            add_event(job.pk, "created", "Created.")
    except IntegrityError:
        found = _find_sent_twice(job.created_by, job.request_key)
        if found is None:
            raise
        return found
    announce_job(job.pk)
    announce_queue()
    transaction.on_commit(send_waiting)
    return job


def check_hyperparameters(chosen: dict[str, Any], method: Method, *, rows: int) -> dict[str, Any]:
    """Those that were chosen, if they make sense with the method's defaults. Raises InvalidError."""
    try:
        Hyperparameters.for_method(method, rows=max(1, rows), **chosen)
    except (ValueError, TypeError) as error:
        raise InvalidError(f"The hyperparameters are not valid: {error}") from error
    return chosen


def check_prompts(prompts: Sequence[str]) -> list[str]:
    """Raises InvalidError."""
    if len(prompts) > MAX_SAMPLE_PROMPTS:
        raise InvalidError(f"At most {MAX_SAMPLE_PROMPTS} sample prompts can be asked during a training.")
    return [check_text(prompt, limit=MAX_SAMPLE_CHARS, field="sample_prompts") for prompt in prompts]


def check_system_prompt(text: str) -> str:
    """As chat will send it: a form's line ends, or a blank at its end, would be trained on and never be said again.

    Raises InvalidError.
    """
    text = check_text(text, limit=MAX_SYSTEM_PROMPT, field="system_prompt", required=False)
    return text.replace("\r\n", "\n").strip()


def check_priority(priority: int) -> int:
    low, high = PRIORITIES
    if not low <= priority <= high:
        raise InvalidError(f"The priority must be from {low} to {high}.")
    return priority


def _find_sent_twice(user: User | None, request_key: str) -> FineTuningJob | None:
    if user is None or not request_key:
        return None
    return FineTuningJob.objects.filter(created_by=user, request_key=request_key).first()


def _choose_version(
    version: DatasetVersion | None, dataset: Dataset | None, method: Method, *, user: User | None
) -> DatasetVersion:
    if version is None:
        if dataset is None:
            raise InvalidError("Say which dataset the model is trained on.")
        version = ensure_version(dataset, user=user)
    if version.dataset.deleted_at is not None:
        raise InvalidError(f"The dataset {version.dataset.name} was deleted.")
    if version.status == DatasetVersion.Status.FAILED:
        raise InvalidError(
            f"{version} could not be frozen: {version.error_message or 'see its page'}. Freeze it again."
        )
    check_kind(method, version)
    return version
