"""The tick: due jobs begin, jobs of dead workers go on, and what waits gets its task."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from config.heartbeats import worker_key, write_heartbeat
from finetuning.jobs import dispatch, pause_queue
from finetuning.jobs.states import Status
from finetuning.jobs.tending import tend
from finetuning.models import FineTuningJob
from tests.finetuning.job_rows import make_job

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The tasks that were sent, and the job of each."""
    messages: list[tuple[str, str]] = []
    monkeypatch.setattr(
        dispatch.app, "send_task", lambda task, args, **options: messages.append((task.rpartition(".")[2], args[0]))
    )
    return messages


def silent(seconds: float) -> dict[str, object]:
    return {"owner_token": uuid4(), "heartbeat_at": timezone.now() - timedelta(seconds=seconds)}


def tended(job: FineTuningJob) -> FineTuningJob:
    tend()
    job.refresh_from_db()
    return job


def test_job_begins_when_its_time_has_come(alice, sent):
    due = make_job(alice, Status.SCHEDULED, run_at=timezone.now() - timedelta(seconds=1))
    later = make_job(alice, Status.SCHEDULED, run_at=timezone.now() + timedelta(hours=1))
    assert tended(due).status == Status.VALIDATING_FILES
    assert tended(later).status == Status.SCHEDULED
    assert ("validate_job", str(due.pk)) in sent


@pytest.mark.parametrize(
    ("before", "after"), [(Status.RUNNING, Status.QUEUED), (Status.VALIDATING_FILES, Status.VALIDATING_FILES)]
)
def test_job_of_a_dead_worker_waits_again(alice, sent, before, after):
    job = tended(make_job(alice, before, attempt=1, **silent(30)))
    assert (job.status, job.owner_token, job.error_code) == (after, None, "")


@pytest.mark.parametrize("status", [Status.RUNNING, Status.VALIDATING_FILES])
def test_job_of_a_worker_that_was_slow_stays_his(alice, sent, status):
    assert tended(make_job(alice, status, **silent(12))).owner_token is not None


def test_third_loss_without_a_checkpoint_is_a_failure(alice, sent):
    job = tended(make_job(alice, Status.RUNNING, attempt=3, **silent(30)))
    assert (job.status, job.error_code) == (Status.FAILED, "worker_lost")
    assert "3 times" in job.error_message


def test_cancelled_job_of_a_dead_worker_ends(alice, sent):
    assert tended(make_job(alice, Status.CANCELLING, **silent(8))).status == Status.CANCELLED


def test_cancelled_job_of_a_living_worker_is_left_to_him(alice, sent):
    assert tended(make_job(alice, Status.CANCELLING, **silent(1))).status == Status.CANCELLING


def test_as_many_tasks_are_sent_as_slots_are_free(alice, sent):
    write_heartbeat(worker_key("training"))
    first, *_ = (make_job(alice, Status.QUEUED) for _ in range(3))
    tend()
    assert sent == [("run_job", str(first.pk))]


def test_no_task_is_sent_to_a_worker_that_is_not_there(alice, sent):
    make_job(alice, Status.QUEUED)
    tend()
    assert sent == []


def test_no_task_is_sent_while_the_queue_is_paused_or_the_slot_taken(alice, sent):
    write_heartbeat(worker_key("training"))
    make_job(alice, Status.QUEUED)
    pause_queue(alice)
    tend()
    assert sent == []


def test_valkey_that_is_away_stops_nothing(alice, monkeypatch):
    from kombu.exceptions import OperationalError

    def away(*_: object, **__: object) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(dispatch.app, "send_task", away)
    job = make_job(alice, Status.VALIDATING_FILES, attempt=1, **silent(30))
    assert tended(job).owner_token is None
