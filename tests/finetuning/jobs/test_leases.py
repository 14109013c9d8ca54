"""Whoever changes the row has won: claims by many at once, slots, order, pause."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from finetuning.jobs import leases, open_queue, pause_queue, set_priority
from finetuning.jobs.leases import Heart, StopReason, claim_run, claim_validation
from finetuning.jobs.states import Lease, Status, finish_cancelled, move
from finetuning.models import FineTuningJob
from tests.finetuning.job_rows import make_job
from tests.support.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """All of them in threads that set off together; what each gave."""
    ready, results = threading.Barrier(len(calls)), [None] * len(calls)

    def run(number: int) -> None:
        try:
            ready.wait()
            results[number] = calls[number]()
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[number]) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_one_of_many_workers_gets_the_job(alice):
    job = make_job(alice, Status.QUEUED)
    got = [lease for lease in at_once([lambda: claim_run(job.pk)] * 8) if lease is not None]
    assert len(got) == 1
    job.refresh_from_db()
    assert (job.status, job.owner_token, job.attempt) == (Status.RUNNING, got[0].token, 1)


def test_one_of_many_workers_validates(alice):
    job = make_job(alice, Status.VALIDATING_FILES)
    got = [lease for lease in at_once([lambda: claim_validation(job.pk)] * 8) if lease is not None]
    assert len(got) == 1


@pytest.mark.parametrize("slots", [1, 2])
def test_no_more_run_than_there_are_slots_however_many_workers_ask(alice, settings, slots):
    settings.DIALOOP = replace(settings.DIALOOP, training_workers=slots)
    jobs = [make_job(alice, Status.QUEUED) for _ in range(5)]
    at_once([lambda pk=job.pk: claim_run(pk) for job in jobs for _ in range(2)])
    assert FineTuningJob.objects.filter(status=Status.RUNNING).count() == slots


def test_higher_priority_goes_first_then_the_older_one(alice):
    old, young, urgent = (
        make_job(alice, Status.QUEUED, queued_at=timezone.now() - timedelta(minutes=age)) for age in (9, 5, 1)
    )
    set_priority(urgent, 5)
    assert [claim_run(young.pk), claim_run(old.pk)] == [None, None]
    lease = claim_run(urgent.pk)
    assert lease is not None
    end(lease)
    assert claim_run(young.pk) is None
    assert claim_run(old.pk) is not None


def end(lease: Lease) -> None:
    assert move(
        lease.job_id, come_from=[Status.RUNNING], to=Status.FAILED, owner=lease.token, code="x", owner_token=None
    )


def test_held_job_is_passed_over(alice):
    held = make_job(alice, Status.QUEUED, is_held=True)
    other = make_job(alice, Status.QUEUED)
    assert claim_run(held.pk) is None
    assert claim_run(other.pk) is not None


def test_nothing_starts_while_the_queue_is_paused(alice):
    job = make_job(alice, Status.QUEUED)
    pause_queue(alice)
    assert claim_run(job.pk) is None
    open_queue()
    assert claim_run(job.pk) is not None


def test_data_that_is_still_being_frozen_is_not_validated(alice):
    job = make_job(alice, Status.VALIDATING_FILES)
    job.dataset_version.status = "freezing"
    job.dataset_version.save()
    assert claim_validation(job.pk) is None


def test_slot_of_a_cancelled_job_is_free_once_it_has_ended(alice):
    first, second = make_job(alice, Status.QUEUED), make_job(alice, Status.QUEUED)
    lease = claim_run(first.pk)
    FineTuningJob.objects.filter(pk=first.pk).update(status=Status.CANCELLING)
    assert claim_run(second.pk) is None
    assert finish_cancelled(lease)
    assert claim_run(second.pk) is not None


def test_two_moves_from_the_same_state_only_one_of_which_happens(alice):
    lease = claim_run(make_job(alice, Status.QUEUED).pk)

    def to(status: str) -> bool:
        return move(lease.job_id, come_from=[Status.RUNNING], to=status, owner=lease.token, code=status)

    moved = at_once([lambda: to(Status.SUCCEEDED), lambda: to(Status.FAILED), lambda: to(Status.CANCELLING)] * 3)
    assert moved.count(True) == 1
    job = FineTuningJob.objects.get()
    assert job.events.exclude(code="claimed").get().code == job.status


def test_somebody_with_an_old_token_moves_nothing(alice):
    lease = claim_run(make_job(alice, Status.QUEUED).pk)
    moved = move(lease.job_id, come_from=[Status.RUNNING], to=Status.SUCCEEDED, owner=uuid4(), code="x")
    assert not moved
    assert FineTuningJob.objects.get().status == Status.RUNNING


# --- the heart --------------------------------------------------------------------------------------------------------


def test_heart_beats_and_hears_of_a_cancellation(alice, monkeypatch):
    monkeypatch.setattr(leases, "LOOK_SECONDS", 0.05)
    lease = claim_run(make_job(alice, Status.QUEUED).pk)
    long_ago = timezone.now() - timedelta(hours=1)
    FineTuningJob.objects.update(heartbeat_at=long_ago)
    with Heart(lease) as heart:
        wait_until(lambda: FineTuningJob.objects.get().heartbeat_at > long_ago)
        assert heart.stop_reason is None
        FineTuningJob.objects.update(status=Status.CANCELLING)
        wait_until(lambda: heart.stop_reason == StopReason.CANCELLED)


def test_heart_hears_that_somebody_else_has_the_job(alice, monkeypatch):
    monkeypatch.setattr(leases, "LOOK_SECONDS", 0.05)
    lease = claim_run(make_job(alice, Status.QUEUED).pk)
    with Heart(lease) as heart:
        FineTuningJob.objects.update(owner_token=uuid4())
        wait_until(lambda: heart.stop_reason == StopReason.LOST)


def test_heart_outlives_a_database_that_is_away(alice, monkeypatch):
    from django.db import OperationalError

    monkeypatch.setattr(leases, "LOOK_SECONDS", 0.05)
    lease = claim_run(make_job(alice, Status.QUEUED).pk)
    tries = []

    def away(_lease: Lease) -> None:
        tries.append(1)
        raise OperationalError("the database is away")

    real = leases.beat
    monkeypatch.setattr(leases, "beat", away)
    with Heart(lease) as heart:
        wait_until(lambda: len(tries) > 3)
        assert heart.stop_reason is None
        monkeypatch.setattr(leases, "beat", real)
        FineTuningJob.objects.update(status=Status.CANCELLING)
        wait_until(lambda: heart.stop_reason == StopReason.CANCELLED)
