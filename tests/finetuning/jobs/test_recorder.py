"""Events come from the log into the database once each, in order, whatever died in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuning.jobs import recorder as module
from finetuning.jobs.leases import claim_run
from finetuning.jobs.recorder import Recorder
from finetuning.jobs.states import Lease, LostLeaseError, Status
from finetuning.models import FineTuningJob, JobEvent, JobMetric
from tests.finetuning.job_rows import make_job


@pytest.fixture
def lease(alice) -> Lease:
    return claim_run(make_job(alice, Status.QUEUED).pk)


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "events.jsonl"


def started(resumed_from: int = 0, total: int = 100) -> dict[str, Any]:
    return {
        "event": "Started",
        "total_steps": total,
        "steps_per_epoch": 10,
        "resumed_from": resumed_from,
        "parameters": 10,
        "trainable_parameters": 5,
        "device": "cpu",
        "precision": "float32",
    }


def step(number: int, loss: float | None = 1.0) -> dict[str, Any]:
    figures = {"epoch": number / 10, "learning_rate": 0.1, "grad_norm": 1.0, "tokens_per_second": 5.0}
    figures |= {"loss": loss, "eta_seconds": 9.0, "tokens": 50 * number}
    return {"event": "StepDone", "step": number, "total_steps": 100, **figures}


def evaluation(number: int) -> dict[str, Any]:
    return {"event": "EvaluationDone", "step": number, "metrics": {"eval_loss": 2.0}, "score": 2.0, "is_best": True}


def checkpoint(number: int) -> dict[str, Any]:
    return {"event": "CheckpointSaved", "step": number, "is_best": False}


def write(log: Path, *events: dict[str, Any]) -> None:
    with log.open("a") as stream:
        stream.writelines(json.dumps(event) + "\n" for event in events)


def store(lease: Lease, log: Path) -> None:
    """As a worker that has just claimed the job: from where the row says."""
    recorder = Recorder(lease, log, offset=FineTuningJob.objects.get(pk=lease.job_id).event_offset)
    while recorder.store():
        pass


def steps() -> list[int]:
    return list(JobMetric.objects.order_by("step").values_list("step", flat=True))


@pytest.mark.django_db
def test_figures_and_state_are_stored(lease, log):
    write(log, {"event": "Phase", "name": "training"}, started(), evaluation(0), step(1), step(2), evaluation(2))
    store(lease, log)
    job = FineTuningJob.objects.get()
    assert (job.phase, job.step, job.total_steps, job.device, job.eta_seconds) == ("training", 2, 100, "cpu", 9.0)
    assert job.trained_tokens == 100
    assert job.event_offset == log.stat().st_size
    assert steps() == [0, 1, 2]
    assert JobMetric.objects.get(step=2).evaluation == {"eval_loss": 2.0}
    assert JobMetric.objects.get(step=2).loss == 1.0


@pytest.mark.django_db
def test_phase_is_said_when_it_begins_and_not_again(lease, log):
    loading, training = ({"event": "Phase", "name": name} for name in ("loading", "training"))
    write(log, loading, loading, started(), loading, training, loading)
    store(lease, log)
    said = [event.data["name"] for event in JobEvent.objects.filter(code="phase")]
    assert said == ["loading", "training", "loading"]


@pytest.mark.django_db
def test_evaluation_that_comes_later_leaves_the_steps_figures(lease, log):
    write(log, started(), step(1))
    store(lease, log)
    write(log, evaluation(1))
    store(lease, log)
    metric = JobMetric.objects.get(step=1)
    assert (metric.loss, metric.evaluation) == (1.0, {"eval_loss": 2.0})


@pytest.mark.django_db
def test_half_a_line_waits_for_its_end(lease, log):
    write(log, started(), step(1))
    with log.open("a") as stream:
        stream.write('{"event": "StepDone", "ste')
    store(lease, log)
    assert steps() == [1]
    log.write_bytes(log.read_bytes().rsplit(b"\n", 1)[0] + b"\n")  # as the next child repairs it
    write(log, step(2))
    store(lease, log)
    assert steps() == [1, 2]


@pytest.mark.django_db
def test_resumed_run_replaces_what_it_does_again(lease, log):
    write(log, started(), *(step(number) for number in range(1, 8)), evaluation(6))
    store(lease, log)
    write(log, started(resumed_from=4), *(step(number, loss=0.5) for number in range(5, 7)))
    store(lease, log)
    assert steps() == [1, 2, 3, 4, 5, 6]
    assert JobMetric.objects.get(step=6).evaluation is None
    assert JobMetric.objects.get(step=5).loss == 0.5
    assert not JobEvent.objects.filter(code="evaluation").exists()
    assert FineTuningJob.objects.get().step == 6


@pytest.mark.django_db
def test_nothing_is_stored_for_somebody_who_lost_the_job(lease, log):
    write(log, started(), step(1))
    recorder = Recorder(lease, log, offset=0)
    FineTuningJob.objects.update(owner_token=uuid4())
    with pytest.raises(LostLeaseError):
        recorder.store()
    assert steps() == []
    assert FineTuningJob.objects.get().event_offset == 0


@pytest.mark.django_db(transaction=True)
def test_database_that_fails_half_way_keeps_nothing_and_loses_nothing(lease, log, monkeypatch):
    write(log, started(), step(1), evaluation(1))
    recorder = Recorder(lease, log, offset=0)
    real = module._upsert
    monkeypatch.setattr(module, "_upsert", fail)
    with pytest.raises(OperationalError):
        recorder.store()
    assert FineTuningJob.objects.get().event_offset == 0
    monkeypatch.setattr(module, "_upsert", real)
    recorder.store()
    assert steps() == [1]
    assert JobEvent.objects.filter(code="started").count() == 1


def fail(*_: object) -> None:
    raise OperationalError("the database is away")


@pytest.mark.django_db
def test_unknown_events_and_broken_lines_are_passed_over(lease, log):
    write(log, {"event": "FromTheFuture", "x": 1}, {"no": "event"})
    with log.open("a") as stream:
        stream.write("not json\n")
    write(log, started(), step(1))
    store(lease, log)
    assert steps() == [1]


@pytest.mark.django_db
def test_checkpoint_forgives_earlier_losses(lease, log):
    FineTuningJob.objects.update(attempt=3)
    write(log, started(), checkpoint(5))
    store(lease, log)
    assert FineTuningJob.objects.get().attempt == 1


@pytest.mark.django_db
def test_long_log_is_stored_in_polite_batches(lease, log):
    write(log, started(), *(step(number) for number in range(1, 1001)))
    recorder = Recorder(lease, log, offset=0)
    batches = 1
    while recorder.store():
        assert JobMetric.objects.count() <= batches * module.BATCH_LINES
        batches += 1
    assert steps() == list(range(1, 1001))


@pytest.mark.django_db(transaction=True)
@settings(max_examples=15, deadline=None)
@given(lives=st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=5), every=st.integers(1, 9))
def test_curve_has_no_gap_and_no_repeat_however_often_a_run_dies(tmp_path_factory, lives, every):
    """Each life does some steps, saves every few, and dies; a worker stores the log now or only later."""
    JobMetric.objects.all().delete()
    FineTuningJob.objects.all().delete()
    lease = claim_run(make_job(None, Status.QUEUED).pk)
    log, saved, total = tmp_path_factory.mktemp("log") / "events.jsonl", 0, 0
    for count, is_stored in lives:
        write(log, started(resumed_from=saved))
        for number in range(saved + 1, saved + count + 1):
            write(log, step(number), *([checkpoint(number)] if number % every == 0 else []))
        total = saved + count
        saved = total // every * every if total // every * every > saved else saved
        if is_stored:
            store(lease, log)
    store(lease, log)
    assert steps() == list(range(1, total + 1))
