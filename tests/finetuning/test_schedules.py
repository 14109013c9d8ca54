"""Trainings that come again: beat's rows follow the schedule, and a job is made only when there is something new."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from django_celery_beat.models import PeriodicTask, PeriodicTasks

from chat.errors import ForbiddenError, InvalidError, TooLongError
from config.celery import app
from finetuning import schedules
from finetuning.datasets import import_file
from finetuning.jobs.states import Status
from finetuning.models import FineTuningJob, Schedule
from tests.finetuning.ground import chat_rows, write_rows

WEEKLY = "0 2 * * sun"


@pytest.fixture
def schedule(admin_user, base, conversations) -> Schedule:
    return make(admin_user, conversations.dataset)


def make(user, dataset, **values) -> Schedule:
    arguments = {"name": "Sundays", "method": "lora_sft", "base": "tiny-chat", "cron": WEEKLY}
    return schedules.create_schedule(user=user, dataset=dataset, **arguments | values)


def add_rows(schedule: Schedule, tmp_path, count: int) -> None:
    rows = chat_rows(count)
    for number, row in enumerate(rows):
        row["messages"][0]["content"] = f"new {timezone.now().isoformat()} {number}"
    import_file(schedule.dataset, write_rows(tmp_path, rows))


def end_jobs() -> None:
    FineTuningJob.objects.update(status=Status.SUCCEEDED)


def checked(schedule: Schedule) -> FineTuningJob | None:
    """As if beat found it due a week after the last time."""
    Schedule.objects.filter(pk=schedule.pk, last_checked_at__isnull=False).update(
        last_checked_at=timezone.now() - timedelta(days=8)
    )
    job = schedules.check_schedule(schedule.pk)
    schedule.refresh_from_db()
    return job


# --- the condition ----------------------------------------------------------------------------------------------------


def test_due_schedule_makes_a_job_on_a_frozen_version(schedule, conversations):
    job = checked(schedule)
    assert (job.schedule, job.dataset_version, job.created_by) == (schedule, conversations, schedule.created_by)
    assert job.status == Status.VALIDATING_FILES
    assert schedule.last_version == conversations
    assert schedule.last_outcome.startswith("Started a job on 40 new examples")


def test_too_few_new_examples_are_waited_for(schedule, tmp_path):
    schedules.change_schedule(schedule, min_new_examples=5)
    assert checked(schedule) is not None
    end_jobs()
    add_rows(schedule, tmp_path, 4)
    assert checked(schedule) is None
    assert schedule.last_outcome == "Skipped: 4 new approved examples, and 5 are asked for."
    add_rows(schedule, tmp_path, 1)
    job = checked(schedule)
    assert job is not None
    assert job.dataset_version.number == 2


def test_training_that_failed_has_used_up_nothing(schedule, tmp_path):
    schedules.change_schedule(schedule, min_new_examples=5)
    checked(schedule)
    end_jobs()
    add_rows(schedule, tmp_path, 5)
    failed = checked(schedule)
    FineTuningJob.objects.filter(pk=failed.pk).update(status=Status.FAILED)
    again = checked(schedule)
    assert again is not None and again.dataset_version == failed.dataset_version
    assert schedule.last_outcome.startswith("Started a job on 5 new examples")


def test_system_prompt_is_trained_as_chat_sends_it(schedule):
    schedules.change_schedule(schedule, system_prompt=" Be brief.\r\nBe kind. \r\n")
    assert checked(schedule).system_prompt == "Be brief.\nBe kind."


def test_two_at_the_same_moment_make_one_job(schedule, monkeypatch):
    """Beat finds it due while somebody presses the button: neither sees a job of the other yet."""
    real = schedules.count_new
    pressed: list[FineTuningJob | None] = []

    def press_meanwhile(*arguments):
        monkeypatch.setattr(schedules, "count_new", real)
        pressed.append(schedules.run_schedule(Schedule.objects.get(pk=schedule.pk)))
        return real(*arguments)

    monkeypatch.setattr(schedules, "count_new", press_meanwhile)
    assert checked(schedule) == pressed[0] == FineTuningJob.objects.get()
    end_jobs()
    assert checked(schedule) not in (None, pressed[0])


def test_rows_that_wait_for_review_are_not_counted(schedule, tmp_path):
    schedules.change_schedule(schedule, min_new_examples=1)
    checked(schedule)
    end_jobs()
    add_rows(schedule, tmp_path, 3)
    schedule.dataset.examples.order_by("-pk")[:1].get()
    newest = schedule.dataset.examples.order_by("-pk").values_list("pk", flat=True)[:3]
    schedule.dataset.examples.filter(pk__in=list(newest)).update(status="pending")
    assert checked(schedule) is None


def test_schedule_waits_for_its_last_job(schedule):
    assert checked(schedule) is not None
    assert checked(schedule) is None
    assert schedule.last_outcome == "Skipped: its last job has not ended yet."
    assert FineTuningJob.objects.count() == 1


def test_what_was_missed_while_down_happens_once(schedule):
    schedules.change_schedule(schedule, cron="* * * * *")
    Schedule.objects.update(last_checked_at=timezone.now() - timedelta(days=30))
    made = []
    for _ in range(5):
        made.append(schedules.check_schedule(schedule.pk))
        end_jobs()
    assert [job is not None for job in made] == [True, False, False, False, False]


def test_schedule_that_is_off_does_nothing(schedule):
    schedules.change_schedule(schedule, is_enabled=False)
    assert checked(schedule) is None
    assert schedule.last_outcome == ""


def test_schedule_of_somebody_who_may_no_longer_curate_is_skipped(schedule, admin_user):
    admin_user.is_superuser = False
    admin_user.save()
    assert checked(schedule) is None
    assert "may no longer" in schedule.last_outcome


def test_base_that_is_gone_is_said(schedule, child):
    (child / "tiny-chat" / "model.safetensors").unlink()
    assert checked(schedule) is None
    assert schedule.last_outcome.startswith("Not started: The weights of tiny-chat@1 are not on this machine")


def test_deleted_schedule_is_no_error(schedule):
    pk = schedule.pk
    schedules.delete_schedule(schedule)
    assert schedules.check_schedule(pk) is None


# --- beat -------------------------------------------------------------------------------------------------------------


def test_beat_is_told_of_every_change(schedule):
    task = PeriodicTask.objects.get(task="finetuning.tasks.check_schedule")
    assert (task.args, task.enabled) == (f"[{schedule.pk}]", True)
    assert (task.crontab.hour, task.crontab.day_of_week) == ("2", "sun")
    before = PeriodicTasks.last_change()
    schedules.change_schedule(schedule, cron="30 4 * * *", time_zone="Europe/Berlin")
    task.refresh_from_db()
    assert (task.crontab.minute, str(task.crontab.timezone)) == ("30", "Europe/Berlin")
    assert PeriodicTasks.last_change() > before
    schedules.delete_schedule(schedule)
    assert not PeriodicTask.objects.filter(pk=task.pk).exists()


def test_beat_finds_it_due_at_its_time_and_not_before(schedule):
    from django_celery_beat.schedulers import ModelEntry

    task = PeriodicTask.objects.get(task="finetuning.tasks.check_schedule")
    assert not ModelEntry(task, app=app).is_due().is_due
    task.last_run_at = datetime(2020, 1, 1, tzinfo=UTC)
    assert ModelEntry(task, app=app).is_due().is_due


def test_next_time_is_told(schedule):
    following = schedules.next_run_at(schedule)
    assert (following.weekday(), following.hour, following.minute) == (6, 2, 0)
    assert timezone.now() < following <= timezone.now() + timedelta(days=7)
    schedules.change_schedule(schedule, time_zone="Asia/Tokyo")
    following = schedules.next_run_at(schedule).astimezone(UTC)
    assert (following.weekday(), following.hour, following.minute) == (5, 17, 0)
    schedules.change_schedule(schedule, is_enabled=False)
    assert schedules.next_run_at(schedule) is None


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"cron": "every sunday"}, "is not a time"),
        ({"cron": "61 2 * * *"}, "is not a time"),
        ({"cron": "0 2 * *"}, "is not a time"),
        ({"cron": "0 0 31 2 *"}, "never comes"),
        ({"cron": f"{','.join(map(str, range(60)))} * * * *"}, "cron has 1.. characters"),
        ({"time_zone": "Mars/Olympus"}, "no time zone"),
        ({"time_zone": "../etc"}, "no time zone"),
        ({"base": "nobody"}, "no model 'nobody'"),
        ({"method": "dpo"}, "does not hold"),
        ({"min_new_examples": -1}, "min_new_examples"),
        ({"hyperparameters": {"x": 1}}, "Unknown hyperparameters"),
        ({"name": "  "}, "must not be empty"),
        ({"name": "Sundays"}, "There is a schedule named"),
    ],
)
def test_what_could_never_run_is_refused(schedule, admin_user, values, sentence):
    with pytest.raises((InvalidError, TooLongError), match=sentence):
        make(admin_user, schedule.dataset, **{"name": "Another", **values})
    assert Schedule.objects.count() == PeriodicTask.objects.filter(task=schedules.TASK).count() == 1


def test_one_that_can_no_longer_run_can_be_switched_off(schedule, child):
    (child / "tiny-chat" / "model.safetensors").unlink()
    assert not schedules.change_schedule(schedule, is_enabled=False).is_enabled
    with pytest.raises(InvalidError):
        schedules.change_schedule(schedule, is_enabled=True)


def test_member_makes_no_schedule(alice, base, conversations):
    with pytest.raises(ForbiddenError):
        make(alice, conversations.dataset)
