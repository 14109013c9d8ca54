"""The tick: due jobs begin, jobs of dead workers go on, and what waits gets its task."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from django.utils import timezone

from config.file_lock import file_lock
from config.heartbeats import worker_key, write_heartbeat
from finetuning.jobs import dispatch, pause_queue
from finetuning.jobs.folders import CHECKPOINTS, LOCK, RUN, job_folder
from finetuning.jobs.states import Status
from finetuning.jobs.tending import KEPT_FOR, clean_up, tend
from finetuning.models import Evaluation, FineTuningJob
from tests.finetuning.job_rows import make_job, make_result

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


def test_child_of_a_dead_worker_does_not_train_beside_the_next_job(alice, sent, monkeypatch):
    ended: list[Path] = []
    monkeypatch.setattr("finetuning.jobs.tending.kill_orphan", ended.append)
    make_job(alice, Status.RUNNING, **silent(12))
    lost = tended(make_job(alice, Status.RUNNING, **silent(30)))
    assert ended == [job_folder(lost.pk)]


@pytest.mark.parametrize("status", [Status.RUNNING, Status.VALIDATING_FILES])
def test_job_of_a_worker_that_was_slow_stays_his(alice, sent, status):
    assert tended(make_job(alice, status, **silent(12))).owner_token is not None


def test_third_loss_without_a_checkpoint_is_a_failure(alice, sent):
    job = tended(make_job(alice, Status.RUNNING, attempt=3, **silent(30)))
    assert (job.status, job.error_code) == (Status.FAILED, "worker_lost")
    assert "3 times" in job.error_message


def test_cancelled_job_of_a_dead_worker_ends(alice, sent):
    assert tended(make_job(alice, Status.CANCELLING, **silent(8))).status == Status.CANCELLED


def test_evaluation_that_nobody_ends_is_not_shown_as_running(alice, sent):
    job = make_job(alice, Status.CANCELLING, **silent(8))
    make_result(job, status=Evaluation.Status.RUNNING)
    tend()
    assert not job.evaluations.exists()


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


# --- what ended jobs leave --------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoints(settings, tmp_path):
    """Of a job that ended so long ago."""
    settings.DIALOOP = replace(settings.DIALOOP, data_dir=tmp_path)

    def make(user, status: Status, ago: timedelta) -> Path:
        job = make_job(user, status, finished_at=timezone.now() - ago)
        folder = job_folder(job.pk) / RUN / CHECKPOINTS
        folder.mkdir(parents=True)
        return folder

    return make


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_checkpoints_nobody_went_on_with_are_deleted(alice, checkpoints, status):
    old = checkpoints(alice, status, KEPT_FOR + timedelta(hours=1))
    young = checkpoints(alice, status, KEPT_FOR - timedelta(hours=1))
    clean_up()
    assert (old.exists(), young.exists()) == (False, True)


def test_checkpoints_of_a_job_that_goes_on_stay(alice, checkpoints):
    resumed = checkpoints(alice, Status.QUEUED, KEPT_FOR * 2)
    at_work = checkpoints(alice, Status.CANCELLED, KEPT_FOR * 2)
    with file_lock(at_work.parent.parent / LOCK) as is_free:
        assert is_free
        clean_up()
    assert resumed.exists() and at_work.exists()
