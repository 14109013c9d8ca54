"""Trainings that come again: a cron line in beat's own tables, and a condition that is looked at when it is due."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from celery.schedules import ParseException
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, PeriodicTask

from chat.errors import ChatError, InvalidError, NotFoundError
from chat.text import check_text
from finetuning.access import check_curator, is_curator
from finetuning.jobs.bases import check_target, find_base, parse_method, suggest_target
from finetuning.jobs.creation import MAX_NAME, check_hyperparameters, check_prompts, check_system_prompt, create_job
from finetuning.jobs.data import count_new
from finetuning.models import Dataset, DatasetVersion, FineTuningJob, Schedule
from finetuning.models.jobs import ENDED_JOBS
from finetuning.training.specs import KINDS

if TYPE_CHECKING:
    from accounts.models import User

TASK = "finetuning.tasks.check_schedule"
# A tick that no worker took for so long is not done any more; the next one is.
EXPIRES = timedelta(hours=1)
CRON_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
MAX_MIN_NEW = 10_000_000
MAX_OUTCOME = 300
MAX_CRON = 100
RECIPE = ("name", "method", "base", "target", "hyperparameters", "system_prompt", "sample_prompts")
WHEN = ("cron", "time_zone", "min_new_examples", "is_enabled")

logger = logging.getLogger(__name__)


# --- what people do ---------------------------------------------------------------------------------------------------


def list_schedules(*, user: User) -> list[Schedule]:
    """By name. Raises ForbiddenError."""
    check_curator(user)
    return list(Schedule.objects.select_related("dataset", "created_by", "last_version", "periodic_task__crontab"))


def get_schedule(schedule_id: int, *, user: User) -> Schedule:
    """Raises ForbiddenError, NotFoundError."""
    check_curator(user)
    schedules = Schedule.objects.select_related("dataset", "created_by", "last_version", "periodic_task__crontab")
    found = schedules.filter(pk=min(schedule_id, 2**63 - 1)).first()
    if found is None:
        raise NotFoundError("There is no such schedule.")
    return found


def create_schedule(*, user: User, dataset: Dataset, **values: Any) -> Schedule:
    """`values`: name, method, base and cron, and what else a Schedule has. Raises ForbiddenError, InvalidError."""
    check_curator(user)
    schedule = Schedule(dataset=dataset, created_by=user)
    _set_values(schedule, values)
    _check(schedule, user=user)
    try:
        with transaction.atomic():
            schedule.save(force_insert=True)
            _write_task(schedule)
    except IntegrityError as error:
        raise InvalidError(f"There is a schedule named {schedule.name!r} already.") from error
    return schedule


def change_schedule(schedule: Schedule, *, user: User | None = None, **values: Any) -> Schedule:
    """Beat takes it up within seconds. Whoever changes it answers for its jobs from now on. Raises InvalidError."""
    _set_values(schedule, values)
    if user is not None:
        check_curator(user)
        schedule.created_by = user
    if values != {"is_enabled": False}:  # one that can no longer run can be switched off all the same
        _check(schedule, user=user or schedule.created_by)
    try:
        with transaction.atomic():
            schedule.save(update_fields=["dataset", "created_by", *RECIPE, *WHEN])
            _write_task(schedule)
    except IntegrityError as error:
        raise InvalidError(f"There is a schedule named {schedule.name!r} already.") from error
    return schedule


def delete_schedule(schedule: Schedule) -> None:
    """Its jobs stay."""
    with transaction.atomic():
        if schedule.periodic_task is not None:
            schedule.periodic_task.delete()
        schedule.delete()


def next_run_at(schedule: Schedule) -> datetime | None:
    """None for one that is switched off."""
    if not schedule.is_enabled:
        return None
    return _following(_crontab(schedule))


def _following(crontab: CrontabSchedule) -> datetime:
    """Raises RuntimeError for a day that never comes."""
    start, ends_in, _ = crontab.schedule.remaining_delta(timezone.now().astimezone(crontab.timezone))
    return start + ends_in


# --- when it is due ---------------------------------------------------------------------------------------------------


def check_schedule(schedule_id: int) -> FineTuningJob | None:
    """Beat says that it is due: make a job, if there is enough that is new. What came of it is kept in the row.

    Asked twice for the same moment it does nothing the second time, so a beat that died and came back starts nothing
    again, and of many moments that were missed only one is made up for.
    """
    schedule = _read(schedule_id)
    if schedule is None or not schedule.is_enabled or not _take_turn(schedule):
        return None
    return run_schedule(schedule)


def run_schedule(schedule: Schedule) -> FineTuningJob | None:
    """The same now, whatever the clock says. None when nothing was started: `last_outcome` says why."""
    now = timezone.now()
    job, outcome = _start_if_worthwhile(schedule)
    columns: dict[str, Any] = {"last_checked_at": now, "last_outcome": outcome[:MAX_OUTCOME]}
    if job is not None:
        columns["last_version"] = job.dataset_version
    Schedule.objects.filter(pk=schedule.pk).update(**columns)
    for name, value in columns.items():
        setattr(schedule, name, value)
    logger.info("schedule %s: %s", schedule.pk, outcome)
    return job


def _take_turn(schedule: Schedule) -> bool:
    last = schedule.last_checked_at
    if last is not None and not _crontab(schedule).schedule.is_due(last).is_due:
        return False
    mine = Schedule.objects.filter(pk=schedule.pk, last_checked_at=last)
    return bool(mine.update(last_checked_at=timezone.now()))


def _start_if_worthwhile(schedule: Schedule) -> tuple[FineTuningJob | None, str]:
    user = schedule.created_by
    if user is None or not is_curator(user):
        return None, "Skipped: whoever made this schedule may no longer start trainings. Save it again."
    # The next job is named after it: beat and a person, or two persons, at the same moment make one and the same.
    last = schedule.jobs.order_by("-created_at", "-pk").values_list("pk", flat=True).first()
    if schedule.jobs.exclude(status__in=ENDED_JOBS).exists():
        return None, "Skipped: its last job has not ended yet."
    if schedule.dataset.deleted_at is not None:
        return None, "Skipped: its dataset was deleted."
    new = count_new(schedule.dataset, _learned(schedule))
    if new < schedule.min_new_examples:
        return None, f"Skipped: {new} new approved examples, and {schedule.min_new_examples} are asked for."
    try:
        job = create_job(
            user=user,
            dataset=schedule.dataset,
            method=schedule.method,
            base=schedule.base,
            target=schedule.target,
            hyperparameters=schedule.hyperparameters,
            system_prompt=schedule.system_prompt,
            sample_prompts=schedule.sample_prompts,
            name=schedule.name,
            request_key=f"schedule-{schedule.pk}-{last.hex if last else 0}",
            schedule=schedule,
        )
    except ChatError as error:
        return None, f"Not started: {error.message}"
    return job, f"Started a job on {new} new examples ({job.dataset_version})."


def _learned(schedule: Schedule) -> DatasetVersion | None:
    """What its last training that succeeded has seen: one that failed has used up nothing."""
    done = schedule.jobs.filter(status=FineTuningJob.Status.SUCCEEDED).select_related("dataset_version")
    last = done.order_by("-created_at", "-pk").first()
    return last.dataset_version if last else None


def _read(schedule_id: int) -> Schedule | None:
    return Schedule.objects.select_related("dataset", "created_by", "last_version").filter(pk=schedule_id).first()


# --- values -----------------------------------------------------------------------------------------------------------


def _set_values(schedule: Schedule, values: dict[str, Any]) -> None:
    unknown = values.keys() - {*RECIPE, *WHEN, "dataset"}
    if unknown:
        raise TypeError(f"a schedule has no {', '.join(sorted(unknown))}")
    for name, value in values.items():
        setattr(schedule, name, value)


def _check(schedule: Schedule, *, user: User | None) -> None:
    """Raises InvalidError for what could never run."""
    schedule.name = check_text(schedule.name, limit=MAX_NAME, field="name").strip()
    schedule.system_prompt = check_system_prompt(schedule.system_prompt)
    schedule.sample_prompts = check_prompts(schedule.sample_prompts)
    method = parse_method(schedule.method)
    find_base(schedule.base, method, user=user)
    if schedule.dataset.deleted_at is not None:
        raise InvalidError(f"The dataset {schedule.dataset.name} was deleted.")
    if schedule.dataset.kind and schedule.dataset.kind not in KINDS[method]:
        raise InvalidError(f"{schedule.dataset.name} does not hold what this method learns from.")
    schedule.target = schedule.target or suggest_target(schedule.base, schedule.dataset, method=method)
    check_target(schedule.target, method)
    check_hyperparameters(schedule.hyperparameters, method, rows=1_000)
    if not 0 <= schedule.min_new_examples <= MAX_MIN_NEW:
        raise InvalidError(f"min_new_examples must be from 0 to {MAX_MIN_NEW}.")
    schedule.cron = " ".join(check_text(schedule.cron, limit=MAX_CRON, field="cron").lower().split())
    _check_cron(schedule)


def _check_cron(schedule: Schedule) -> None:
    """Beat must never meet a line that it cannot read, or a day that never comes: it would die of it."""
    try:
        ZoneInfo(schedule.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidError(f"There is no time zone {schedule.time_zone!r}; one is Europe/Berlin.") from None
    try:
        crontab = _crontab(schedule)
        crontab.full_clean(validate_unique=False)
    except (ValueError, ParseException, ValidationError):
        raise InvalidError(
            f"{schedule.cron!r} is not a time: minute, hour, day of month, month and day of week, as in 0 2 * * sun."
        ) from None
    try:
        _following(crontab)
    except (RuntimeError, ValueError):
        raise InvalidError(f"{schedule.cron!r} names a day that never comes.") from None


def _crontab(schedule: Schedule) -> CrontabSchedule:
    """As beat has it, not stored. Raises ValueError for another number of fields."""
    fields = dict(zip(CRON_FIELDS, schedule.cron.split(), strict=True))
    return CrontabSchedule(**fields, timezone=ZoneInfo(schedule.time_zone))


def _write_task(schedule: Schedule) -> None:
    """Beat notices by `PeriodicTasks.changed`, which saving does. A change of the time does not make it due at once."""
    crontab = _crontab(schedule)
    same = {name: getattr(crontab, name) for name in (*CRON_FIELDS, "timezone")}
    stored = CrontabSchedule.objects.filter(**same).first() or CrontabSchedule.objects.create(**same)
    task = schedule.periodic_task or PeriodicTask(name=f"schedule {schedule.pk}", task=TASK)
    task.crontab = stored
    task.args = json.dumps([schedule.pk])
    task.enabled = schedule.is_enabled
    task.expire_seconds = int(EXPIRES.total_seconds())
    task.description = schedule.name
    task.last_run_at = timezone.now()
    task.save()
    if schedule.periodic_task_id is None:
        schedule.periodic_task = task
        schedule.save(update_fields=["periodic_task"])
