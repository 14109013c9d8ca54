"""Brings the events of a run from its log file into the database: each once, in order, whatever dies in between.

The offset up to which the log is stored is kept in the same transaction as what it says.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from finetuning.jobs.states import Lease, LostLeaseError
from finetuning.live.nudges import announce_job
from finetuning.models import FineTuningJob, JobEvent, JobMetric

BATCH_LINES = 100
STEP_FIELDS = ("epoch", "loss", "learning_rate", "grad_norm", "tokens_per_second")
PHASES = {
    "loading": "Loading the model and the data.",
    "measuring": "Measuring the longest batch.",
    "training": "Training.",
    "saving": "Saving the result.",
}
# Kept in the log under the step they belong to, and written again by a run that does the step again.
OF_A_STEP = ("evaluation", "samples", "checkpoint")

logger = logging.getLogger(__name__)


@dataclass
class Batch:
    """What some lines of the log change. `phase` is the last one that was said: it is not said again."""

    phase: str = ""
    columns: dict[str, Any] = field(default_factory=dict)
    steps: dict[int, dict[str, Any]] = field(default_factory=dict)
    evaluations: dict[int, dict[str, Any]] = field(default_factory=dict)
    events: list[JobEvent] = field(default_factory=list)
    forget_after: int | None = None

    def add(self, job_id: Any, event: dict[str, Any]) -> None:
        """An event nobody here knows is passed over: a newer child may say more."""
        handler = getattr(self, f"_on_{event.get('event')}", None)
        if handler is not None:
            handler(job_id, event)

    def _on_Phase(self, job_id: Any, event: dict[str, Any]) -> None:
        name = event["name"]
        self.columns["phase"] = name[:16]
        if name != self.phase:
            self._say(job_id, "phase", PHASES.get(name, ""), event, name=name)
        self.phase = name

    def _on_Started(self, job_id: Any, event: dict[str, Any]) -> None:
        first = event["resumed_from"]
        self.columns |= {"step": first, "total_steps": event["total_steps"]}
        self.columns |= {"device": str(event["device"])[:50], "precision": event["precision"][:16]}
        self._forget(first)
        names = ("total_steps", "steps_per_epoch", "resumed_from", "parameters", "trainable_parameters", "device")
        values = {name: event.get(name) for name in (*names, "precision")}
        if first:
            self._say(job_id, "resumed", f"Goes on after step {first} of {event['total_steps']}.", event, **values)
        else:
            self._say(job_id, "started", f"Begins with {event['total_steps']} steps to do.", event, **values)

    def _on_WarmUpDone(self, job_id: Any, event: dict[str, Any]) -> None:
        self.columns["eta_seconds"] = event["estimated_seconds"]
        message = f"The longest batch takes {event['seconds']:.2f} s."
        names = ("longest_row", "seconds", "peak_memory_bytes", "estimated_seconds")
        self._say(job_id, "measured", message, event, **{name: event.get(name) for name in names})

    def _on_StepDone(self, job_id: Any, event: dict[str, Any]) -> None:
        step = event["step"]
        self.columns |= {name: event[name] for name in ("step", "total_steps", "eta_seconds")}
        if "tokens" in event:  # a log of before it was counted has none
            self.columns["trained_tokens"] = event["tokens"]
        self.steps[step] = {name: event[name] for name in STEP_FIELDS}

    def _on_EvaluationDone(self, job_id: Any, event: dict[str, Any]) -> None:
        step = event["step"]
        self.evaluations[step] = event["metrics"]
        values = {"metrics": event["metrics"], "is_best": event["is_best"]}
        self._say(job_id, "evaluation", f"Evaluated after step {step}.", event, step=step, **values)

    def _on_SamplesWritten(self, job_id: Any, event: dict[str, Any]) -> None:
        step = event["step"]
        self._say(job_id, "samples", f"Sample answers after step {step}.", event, step=step, answers=event["answers"])

    def _on_CheckpointSaved(self, job_id: Any, event: dict[str, Any]) -> None:
        self.columns["attempt"] = 1  # it got on: what was lost before does not count
        step = event["step"]
        self._say(job_id, "checkpoint", f"Checkpoint at step {step}.", event, step=step)

    def _forget(self, step: int) -> None:
        self.forget_after = step if self.forget_after is None else min(step, self.forget_after)
        self.steps = {number: values for number, values in self.steps.items() if number <= step}
        self.evaluations = {number: values for number, values in self.evaluations.items() if number <= step}
        self.events = [event for event in self.events if not _is_later(event, step)]

    def _say(self, job_id: Any, code: str, message: str, event: dict[str, Any], **data: Any) -> None:
        at = event.get("at") or timezone.now()
        self.events.append(JobEvent(job_id=job_id, code=code, message=message, data=data, created_at=at))


def _is_later(event: JobEvent, step: int) -> bool:
    return event.code in OF_A_STEP and event.data["step"] > step


class Recorder:
    """Tails one log for one lease. `offset` is where the row says that it was stored up to."""

    def __init__(self, lease: Lease, log: Path, *, offset: int) -> None:
        self._lease = lease
        self._log = log
        self._offset = offset
        self._counted_at: float | None = None
        self._phase = ""

    def count_time(self) -> None:
        """From now on the time goes on the job's account."""
        self._counted_at = time.monotonic()

    def store(self) -> bool:
        """The next lines, in one short transaction; whether there may be more.

        Raises LostLeaseError, and django.db.Error when the database is away: then nothing is stored or forgotten.
        """
        lines, end = self._read()
        batch = Batch(phase=self._phase)
        for line in lines:
            batch.add(self._lease.job_id, line)
        now = time.monotonic()
        seconds = now - self._counted_at if self._counted_at is not None else 0.0
        with transaction.atomic():
            self._write(batch, end, seconds)
        self._offset, self._phase = end, batch.phase
        self._counted_at = now if self._counted_at is not None else None
        if lines:
            announce_job(self._lease.job_id)
        return len(lines) == BATCH_LINES

    def has_news(self) -> bool:
        try:
            return self._log.stat().st_size > self._offset
        except OSError:
            return False

    def _read(self) -> tuple[list[dict[str, Any]], int]:
        """Whole lines only, and the offset behind them."""
        found, end = [], self._offset
        try:
            with self._log.open("rb") as stream:
                stream.seek(end)
                while len(found) < BATCH_LINES and (line := stream.readline()).endswith(b"\n"):
                    end += len(line)
                    found.append(_parse(line))
        except FileNotFoundError:
            return [], end
        return found, end

    def _write(self, batch: Batch, end: int, seconds: float) -> None:
        job_id = self._lease.job_id
        mine = FineTuningJob.objects.filter(pk=job_id, owner_token=self._lease.token, event_offset=self._offset)
        columns = {"event_offset": end, "training_seconds": F("training_seconds") + seconds, **batch.columns}
        if not mine.update(**columns):
            raise LostLeaseError
        if batch.forget_after is not None:
            JobMetric.objects.filter(job_id=job_id, step__gt=batch.forget_after).delete()
            later = JobEvent.objects.filter(job_id=job_id, code__in=OF_A_STEP, data__step__gt=batch.forget_after)
            later.delete()
        _upsert(job_id, batch.steps, STEP_FIELDS)
        _upsert(job_id, {step: {"evaluation": found} for step, found in batch.evaluations.items()}, ("evaluation",))
        JobEvent.objects.bulk_create(batch.events)


def _upsert(job_id: Any, rows: dict[int, dict[str, Any]], columns: tuple[str, ...]) -> None:
    """A step's figures and its evaluation come apart: neither may wipe out the other."""
    JobMetric.objects.bulk_create(
        [JobMetric(job_id=job_id, step=step, **values) for step, values in rows.items()],
        update_conflicts=True,
        unique_fields=["job", "step"],
        update_fields=columns,
    )


def _parse(line: bytes) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:
        logger.warning("a line of a job's log is no JSON and is passed over")
        return {}
