"""What can happen to a job while a real child works for it: cancelled, interrupted, killed, no memory, no disk."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from finetuning.jobs import cancel_job, process, resume_job, retry_job, shutdown, work
from finetuning.jobs.folders import job_folder, open_folder
from finetuning.jobs.states import Status
from finetuning.jobs.tending import tend
from finetuning.models import DatasetVersion, Evaluation, FineTuningJob
from finetuning.versions import registration
from models_hub.models import ModelVersion, RegisteredModel
from tests.finetuning.ground import LONG, QUICK, make_job
from tests.support.waiting import wait_until

PATIENCE = 120.0


@contextmanager
def working(call: Callable[[], object]) -> Iterator[threading.Thread]:
    """A worker's thread; the test goes on beside it, and ends after it."""

    def run() -> None:
        try:
            call()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(PATIENCE)
        shutdown.request()
        thread.join()
        shutdown.withdraw()


def wait_for(job: FineTuningJob, is_so: Callable[[FineTuningJob], object], *, what: str = "") -> FineTuningJob:
    def look() -> object:
        job.refresh_from_db()
        return is_so(job)

    wait_until(look, patience=PATIENCE, what=what or f"{job.status} {job.phase} {job.error_message}")
    return job


def child_pid(job: FineTuningJob) -> int:
    return int((job_folder(job.pk) / process.PID).read_text())


def is_alive(pid: int) -> bool:
    try:
        state = re.search(r"\) (\w)", Path(f"/proc/{pid}/stat").read_text())
    except OSError:
        return False
    return state is not None and state[1] != "Z"


def make_checked(version: DatasetVersion, **values: object) -> FineTuningJob:
    """Past its pre-flight check, which tests of what comes later need not wait for."""
    job = make_job(version, **values)
    FineTuningJob.objects.filter(pk=job.pk).update(status=Status.QUEUED, preflight={"errors": []})
    job.refresh_from_db()
    return job


def curve(job: FineTuningJob) -> list[int]:
    return list(job.metrics.filter(loss__isnull=False).order_by("step").values_list("step", flat=True))


def assert_nothing_registered() -> None:
    assert not RegisteredModel.objects.filter(slug="tiny-words").exists()


# --- cancelling -------------------------------------------------------------------------------------------------------


def test_cancelled_while_training(base, conversations, child):
    job = make_checked(conversations, hyperparameters=LONG)
    with working(lambda: work.run(job.pk)):
        wait_for(job, lambda job: job.step >= 5)
        pid = child_pid(job)
        cancel_job(job)
        wait_for(job, lambda job: job.status == Status.CANCELLED)
    assert not is_alive(pid)
    assert (job.owner_token, job.error_code) == (None, "")
    assert_nothing_registered()


def test_cancelled_while_its_child_does_not_listen(base, conversations, child):
    job = make_checked(conversations, hyperparameters=LONG)
    with working(lambda: work.run(job.pk)):
        wait_for(job, lambda job: job.step >= 1)
        pid = child_pid(job)
        os.kill(pid, signal.SIGSTOP)
        cancel_job(job)
        wait_for(job, lambda job: job.status == Status.CANCELLED)
    assert not is_alive(pid)


def test_cancelled_while_validating_without_waiting_for_the_child(base, conversations, child, monkeypatch):
    """It has nothing to keep, and may be loading a large base."""
    for name in ("TERM_AFTER", "KILL_AFTER"):
        monkeypatch.setattr(process, name, PATIENCE * 2)
    job = make_job(conversations)
    with working(lambda: work.validate(job.pk)):
        wait_for(job, lambda job: (job_folder(job.pk) / process.PID).exists())
        pid = child_pid(job)
        os.kill(pid, signal.SIGSTOP)
        assert cancel_job(job).status == Status.CANCELLING
        wait_for(job, lambda job: job.status == Status.CANCELLED)
    assert not is_alive(pid)
    assert job.preflight is None


def test_cancelled_while_evaluating_keeps_a_whole_version_and_evaluates_when_resumed(base, conversations, child):
    job = make_checked(conversations)
    with working(lambda: work.run(job.pk)):
        wait_for(job, lambda job: job.phase == "evaluating")
        cancel_job(job)
        wait_for(job, lambda job: job.status == Status.CANCELLED)
    version = ModelVersion.objects.get(model__slug="tiny-words")
    assert version.evaluated_at is None
    assert not version.model.aliases.filter(name="production").exists()
    trained = (child / version.source / "model.safetensors").stat().st_mtime_ns

    resume_job(job)
    assert work.run(job.pk)
    wait_for(job, lambda job: job.status == Status.SUCCEEDED)
    assert RegisteredModel.objects.get(slug="tiny-words").versions.count() == 1
    assert (child / version.source / "model.safetensors").stat().st_mtime_ns == trained
    assert Evaluation.objects.get().status == Evaluation.Status.COMPLETE


# --- interruptions ----------------------------------------------------------------------------------------------------


def test_worker_that_has_to_end_gives_the_job_back_and_the_next_goes_on(base, conversations, child):
    values = {**LONG, "max_steps": 300, "save_steps": 10}
    job = make_checked(conversations, hyperparameters=values)
    with working(lambda: work.run(job.pk)):
        wait_for(job, lambda job: job.step >= 20)
        shutdown.request()
        wait_for(job, lambda job: job.status == Status.QUEUED)
        shutdown.withdraw()
    assert (job.owner_token, job.attempt) == (None, 0)
    stopped_at = job.step
    assert 20 <= stopped_at < 300

    assert work.run(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error_message) == (Status.SUCCEEDED, "")
    resumed = job.events.get(code="resumed")
    assert resumed.data["resumed_from"] >= stopped_at - 10
    assert curve(job) == list(range(1, 301))


def test_killed_child_is_started_again_from_its_checkpoint(base, conversations, child):
    job = make_checked(conversations, hyperparameters={**LONG, "max_steps": 300, "save_steps": 10})
    with working(lambda: work.run(job.pk)):
        wait_for(job, lambda job: job.step >= 30)
        os.kill(child_pid(job), signal.SIGKILL)
        wait_for(job, lambda job: job.status == Status.QUEUED)
    assert job.events.filter(code="worker_lost").exists()

    assert work.run(job.pk)
    job.refresh_from_db()
    assert job.status == Status.SUCCEEDED
    assert job.events.get(code="resumed").data["resumed_from"] > 0
    assert curve(job) == list(range(1, 301))


def test_child_killed_again_and_again_fails_in_the_end(base, conversations, child):
    job = make_checked(conversations, hyperparameters={**LONG, "save_steps": 100_000})
    for attempt in (1, 2, 3):
        with working(lambda: work.run(job.pk)):
            wait_for(job, lambda job: job.step >= 1 and job.status == Status.RUNNING and job.phase == "training")
            os.kill(child_pid(job), signal.SIGKILL)
            wait_for(job, lambda job: job.status != Status.RUNNING)
        FineTuningJob.objects.filter(pk=job.pk).update(step=0)
        assert job.status == (Status.FAILED if attempt == 3 else Status.QUEUED)
    assert job.error_code == "worker_lost"


def test_another_owner_ends_the_child_of_the_first(base, conversations, child):
    job = make_checked(conversations, hyperparameters=LONG)
    with working(lambda: work.run(job.pk)) as thread:
        wait_for(job, lambda job: job.step >= 1)
        pid = child_pid(job)
        FineTuningJob.objects.filter(pk=job.pk).update(owner_token=uuid4())
        thread.join(PATIENCE)
    assert not is_alive(pid)
    job.refresh_from_db()
    assert job.status == Status.RUNNING  # whatever the other one makes of it


def test_orphan_ends_before_a_second_child_begins(base, conversations, child, monkeypatch):
    """As after `kill -9` of a worker: its child still works when the next worker takes the job."""
    job = make_checked(conversations, hyperparameters={**LONG, "max_steps": 200, "save_steps": 10})
    orphans = []

    class Forgetful(work.Supervision):
        def _follow(self, running: process.ChildProcess) -> int:
            wait_for(job, lambda job: (self._folder / "events.jsonl").exists())
            orphans.append(running)
            raise work.LostLeaseError

    monkeypatch.setattr(process.ChildProcess, "kill", lambda self: self.stop())
    with monkeypatch.context() as patch:
        patch.setattr(work, "Supervision", Forgetful)
        work.run(job.pk)
    FineTuningJob.objects.filter(pk=job.pk).update(status=Status.QUEUED, owner_token=None)
    assert work.run(job.pk)
    job.refresh_from_db()
    assert job.status == Status.SUCCEEDED
    assert not is_alive(orphans[0].pid)
    assert curve(job) == list(range(1, 201))


def test_job_that_is_over_leaves_no_process_of_a_dead_worker_behind(base, conversations, child):
    """Its child does not even listen: what has lost its worker and is stuck is ended all the same."""
    job = make_checked(conversations)
    command = [sys.executable, "-c", "import time; time.sleep(600)", str(job_folder(job.pk))]
    orphan = subprocess.Popen(command, process_group=0)
    try:
        open_folder(job_folder(job.pk))
        (job_folder(job.pk) / process.PID).write_text(str(orphan.pid))
        long_ago = timezone.now() - timedelta(minutes=1)
        lost = {"owner_token": uuid4(), "heartbeat_at": long_ago}
        FineTuningJob.objects.filter(pk=job.pk).update(status=Status.CANCELLING, **lost)
        tend()
        assert orphan.wait(timeout=PATIENCE) == -signal.SIGKILL
    finally:
        orphan.kill()
        orphan.wait()


# --- failures ---------------------------------------------------------------------------------------------------------


def test_child_killed_by_the_kernel_for_memory_is_explained_and_tried_again_at_half_batch(
    base, conversations, child, monkeypatch, tmp_path
):
    """The kernel counts what it has killed for memory; the count here is a file of the test's."""
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 1\noom_kill 4\n")
    monkeypatch.setattr(process, "VMSTAT", vmstat)
    job = make_checked(conversations, hyperparameters=LONG)
    with working(lambda: work.run(job.pk)):
        wait_for(job, lambda job: job.step >= 1)
        vmstat.write_text("nr_free_pages 1\noom_kill 5\n")
        os.kill(child_pid(job), signal.SIGKILL)
        wait_for(job, lambda job: job.status == Status.FAILED)
    assert job.error_code == "out_of_memory"
    assert "ran out of memory" in job.error_message
    smaller = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "per_device_eval_batch_size": 4}
    assert job.error_details["suggestion"] == smaller
    again = retry_job(job, user=None)
    assert again.hyperparameters["per_device_train_batch_size"] == 2


def test_full_disk_is_explained_and_the_job_resumed_when_there_is_room(base, conversations, child, monkeypatch):
    """A limit on the size of files stands for the full disk: the kernel refuses the write the same way."""
    job = make_checked(conversations, hyperparameters={**LONG, "max_steps": 60, "save_steps": 20})
    real = process.subprocess.Popen

    def limited(*arguments, **options):
        started = real(*arguments, **options)
        resource.prlimit(started.pid, resource.RLIMIT_FSIZE, (12_000, 12_000))
        return started

    monkeypatch.setattr(process.subprocess, "Popen", limited)
    assert work.run(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error_code) == (Status.FAILED, "disk")
    assert_nothing_registered()

    monkeypatch.setattr(process.subprocess, "Popen", real)
    resume_job(job)
    assert work.run(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error_message) == (Status.SUCCEEDED, "")
    assert curve(job) == list(range(1, 61))


def test_model_cache_without_room_leaves_nothing_half_registered(base, conversations, child, monkeypatch):
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    job = make_checked(conversations)
    real = registration._relocate
    monkeypatch.setattr(registration, "_relocate", full)
    assert work.run(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error_code) == (Status.FAILED, "disk")
    assert "the disk is full" in job.error_message
    assert_nothing_registered()

    monkeypatch.setattr(registration, "_relocate", real)
    resume_job(job)
    assert work.run(job.pk)
    job.refresh_from_db()
    assert job.status == Status.SUCCEEDED


def test_base_that_has_gone_since_is_named(base, conversations, child):
    job = make_checked(conversations)
    shutil.rmtree(child / "tiny-chat")
    assert work.run(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error_code) == (Status.FAILED, "not_there")
    assert "tiny-chat@1 are not on this machine" in job.error_message


def test_job_with_errors_in_its_report_is_not_trained(base, conversations, child):
    job = make_job(conversations, hyperparameters={**QUICK, "max_length": 8})
    assert work.validate(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error_code) == (Status.FAILED, "preflight")
    assert job.preflight["errors"]
    assert job.error_message.startswith(job.preflight["errors"][0]["message"])


def test_held_job_waits_after_its_check(base, conversations, child):
    job = make_job(conversations, is_held=True)
    assert work.validate(job.pk)
    job.refresh_from_db()
    assert (job.status, job.is_held) == (Status.QUEUED, True)
    assert not work.run(job.pk)


# --- registering ------------------------------------------------------------------------------------------------------


def test_worker_killed_between_files_and_rows_costs_nothing(base, conversations, child, monkeypatch):
    class KilledError(BaseException):
        pass

    def die(*_: object) -> None:
        raise KilledError

    job = make_checked(conversations)
    with monkeypatch.context() as patch:
        patch.setattr(registration, "_write_rows", die)
        with pytest.raises(KilledError):
            work.run(job.pk)
    assert (child / "tiny-words" / "1").is_dir()
    assert_nothing_registered()
    FineTuningJob.objects.filter(pk=job.pk).update(status=Status.QUEUED, owner_token=None)

    started = time.time()
    assert work.run(job.pk)
    job.refresh_from_db()
    assert (job.status, str(job.result_version)) == (Status.SUCCEEDED, "tiny-words@1")
    assert (child / "tiny-words" / "1" / "model.safetensors").stat().st_mtime < started
    assert not (child / "tiny-words" / "2").exists()


def test_cancelled_while_registering_takes_the_files_back(base, conversations, child, monkeypatch):
    job = make_checked(conversations)
    real = registration._move_files

    def move_and_be_cancelled(*arguments):
        record = real(*arguments)
        FineTuningJob.objects.filter(pk=job.pk).update(status=Status.CANCELLING)
        return record

    monkeypatch.setattr(registration, "_move_files", move_and_be_cancelled)
    assert work.run(job.pk)
    job.refresh_from_db()
    assert job.status == Status.CANCELLED
    assert_nothing_registered()
    assert not (child / "tiny-words" / "1").exists()
    assert (job_folder(job.pk) / "run" / "model").is_dir()


def test_second_job_for_a_model_gives_its_next_version(base, conversations, child):
    for number in (1, 2):
        job = make_checked(conversations, hyperparameters={**QUICK, "max_steps": 2})
        assert work.run(job.pk)
        job.refresh_from_db()
        assert str(job.result_version) == f"tiny-words@{number}"
    model = RegisteredModel.objects.get(slug="tiny-words")
    aliases = {alias.name: alias.version.number for alias in model.aliases.all()}
    assert aliases == {"production": 1, "candidate": 2}
