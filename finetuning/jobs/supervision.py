"""Starts a job's child, follows its log, and ends it when the job is cancelled, lost, or this worker has to end."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from django.db import Error as DatabaseFault
from django.db import connection

from finetuning.jobs.folders import EVENTS, LOCK, LOG, SPEC, open_folder, read_tail, write_json
from finetuning.jobs.leases import Heart, StopReason
from finetuning.jobs.process import ChildProcess, is_held, kill_orphan
from finetuning.jobs.recorder import Recorder
from finetuning.jobs.states import ChildLostError, JobFailedError, LostLeaseError
from finetuning.training.event_log import EventLog
from finetuning.training.hyperparameters import Hyperparameters

TICK = 0.2
STORE_SECONDS = 0.5
ORPHAN_PATIENCE = 15.0
HURRY_SECONDS = 1.0

logger = logging.getLogger(__name__)


class CancelledError(Exception):
    """Somebody wants this job to end."""


class ShuttingDownError(Exception):
    """This process has to end; the job goes on elsewhere."""


REASONS = {
    StopReason.CANCELLED: CancelledError,
    StopReason.SHUTDOWN: ShuttingDownError,
    StopReason.LOST: LostLeaseError,
}


def check(heart: Heart) -> None:
    """Raises CancelledError, ShuttingDownError or LostLeaseError when the work must end."""
    if (reason := heart.stop_reason) is not None:
        raise REASONS[reason]


class Supervision:
    """One child in one folder. `recorder` stores what it tells; without one only its end counts.

    `hyperparameters` are all of them, to suggest others when there was not enough memory.
    """

    def __init__(
        self,
        folder: Path,
        spec: dict[str, Any],
        heart: Heart,
        *,
        hyperparameters: Hyperparameters,
        recorder: Recorder | None = None,
    ) -> None:
        self._folder = folder
        self._spec = spec
        self._hyperparameters = hyperparameters
        self._heart = heart
        self._recorder = recorder
        self._stored_at = 0.0

    def run(self) -> dict[str, Any]:
        """The result of the child. Blocks for as long as it takes.

        Raises JobFailedError, ChildLostError, and what `check` does.
        """
        self._wait_for_predecessor()
        child = self._start()
        try:
            status = self._follow(child)
        except BaseException:
            child.kill()
            while child.poll() is None:
                time.sleep(TICK)
            raise
        self._store_all()
        return self._judge(child, status)

    def _start(self) -> ChildProcess:
        try:
            open_folder(self._folder)
            write_json(self._folder / SPEC, self._spec)
            child = ChildProcess(self._folder)
        except OSError as error:
            raise JobFailedError("disk", f"The job's folder could not be written: {error}.") from error
        if self._recorder:
            self._recorder.count_time()
        return child

    def _follow(self, child: ChildProcess) -> int:
        while (status := child.poll()) is None:
            if self._heart.stop_reason is not None:
                self._end(child)
            self._store()
            time.sleep(TICK)
        return status

    def _end(self, child: ChildProcess) -> None:
        """Only a training has something to keep: whoever waits for the others' end need not wait for their loading."""
        if self._spec["mode"] == "train":
            child.stop()
        else:
            child.kill()

    def _wait_for_predecessor(self) -> None:
        """The child of a worker that was killed writes its checkpoint and ends; what it still tells is stored too."""
        deadline = time.monotonic() + ORPHAN_PATIENCE
        while is_held(self._folder.parent / LOCK):
            check(self._heart)
            self._store()
            if time.monotonic() >= deadline:
                kill_orphan(self._folder.parent)
            time.sleep(TICK)

    def _store(self) -> None:
        """At most twice a second. A database that is away is asked again later: the log does not go away.

        Raises LostLeaseError.
        """
        if self._recorder is None or time.monotonic() - self._stored_at < STORE_SECONDS:
            return
        self._stored_at = time.monotonic()
        if not self._recorder.has_news():
            return
        try:
            if self._recorder.store():
                self._stored_at = 0.0  # it is behind: go on after a breath
        except DatabaseFault as error:
            logger.warning("events of %s wait for the database (%s)", self._folder.parent.name, type(error).__name__)
            connection.close()

    def _store_all(self) -> None:
        """What is left after the end; not for long when somebody waits: the row knows where a next run goes on.

        Raises LostLeaseError.
        """
        if self._recorder is None:
            return
        deadline = time.monotonic() + HURRY_SECONDS
        while self._heart.stop_reason is None or time.monotonic() < deadline:
            try:
                if not self._recorder.store():
                    return
            except DatabaseFault:
                connection.close()
            time.sleep(TICK)

    def _judge(self, child: ChildProcess, status: int) -> dict[str, Any]:
        last = EventLog(self._folder / EVENTS).last() or {}
        if status == 0 and last.get("event") == "Succeeded":
            return last["result"]
        check(self._heart)
        if child.was_killed_for_memory():
            raise self._out_of_memory()
        if status == 1 and last.get("event") == "Failed":
            raise self._explain(last)
        if status < 0 or last.get("event") == "Stopped":
            raise ChildLostError(f"The process ended with status {status}.")
        raise JobFailedError(
            "crashed",
            f"The training process ended with status {status} and did not say why. The end of its output is kept with "
            "the job.",
            {"output": read_tail(self._folder / LOG)},
        )

    def _explain(self, event: dict[str, Any]) -> JobFailedError | ChildLostError:
        if event["code"] == "still_running":
            return ChildLostError(event["message"])
        details = event.get("details") or {}
        if event["code"] == "out_of_memory" and not details.get("suggestion"):
            details = {**details, "suggestion": self._hyperparameters.for_less_memory()}
        return JobFailedError(event["code"], event["message"], details)

    def _out_of_memory(self) -> JobFailedError:
        suggestion = self._hyperparameters.for_less_memory()
        advice = ", ".join(f"{name} {value}" for name, value in suggestion.items())
        hint = f" Try {advice}." if advice else " Take a smaller model or a machine with more memory."
        sentence = f"This machine ran out of memory, and the system ended the training process.{hint}"
        return JobFailedError("out_of_memory", sentence, {"suggestion": suggestion})
