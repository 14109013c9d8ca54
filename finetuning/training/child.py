"""The process that trains: `python -m finetuning.training.child FOLDER`, told by FOLDER/spec.json what to do.

Its parent holds its standard input and reads FOLDER/events.jsonl, whose last line says how it ended. End of input, a
line "stop" or SIGTERM: it finishes the batch, writes a checkpoint and ends. Started again, it goes on from there.
Output and errors should go into a file: a pipe that nobody reads any more would break what prints into it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from finetuning.training.environment import LAUNCHED, launch_arguments
from finetuning.training.errors import DeviceError, DiskError, StillRunningError, StopRequested, TrainingError
from finetuning.training.event_log import EventLog
from finetuning.training.events import Failed, Phase, Progress, Stopped, Succeeded, ignore
from finetuning.training.specs import Mode, Spec

SPEC = "spec.json"
EVENTS = "events.jsonl"
LOCK = "lock"
LOCK_PATIENCE = 60.0
NICENESS = 10
BUFFER = 4096


class StopSwitch:
    """Asked by the run between batches. Set by the parent's word, by the parent's death, or by a signal."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self) -> bool:
        return self._event.is_set()

    def listen(self, *, reads_input: bool = True) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._event.set())
        if reads_input:
            threading.Thread(target=self._read_input, daemon=True).start()

    def _read_input(self) -> None:
        """Reads the descriptor itself: a thread inside `sys.stdin` would hold its lock when the process ends."""
        seen = b""
        while data := os.read(0, BUFFER):
            seen = (seen + data)[-BUFFER:]
            if b"stop" in seen.split(b"\n")[:-1]:
                break
        self._event.set()


def main(folder: Path, *, lock_patience: float = LOCK_PATIENCE) -> int:
    """0: it did what it was told, or was stopped. 1: the last event, if one could be written, says what failed.

    Does not return where several processes are asked for: it becomes the one that starts them.
    """
    os.nice(NICENESS)
    log, stop = EventLog(folder / EVENTS), StopSwitch()
    stop.listen()
    with _reported(log) as report:
        lock = _hold_lock(folder.parent / LOCK, stop, patience=lock_patience)
        log.repair()
        spec = Spec.read(folder / SPEC)
        result = _earlier_result(log) if spec.mode is Mode.TRAIN else None
        if result is None:
            log(Phase(name="loading"))
            if spec.mode is Mode.TRAIN and spec.processes > 1:
                _become_launcher(folder, processes=spec.processes)
            result = _run(folder, spec, log, stop)
        log(Stopped() if result is None else Succeeded(result=result))
        os.close(lock)
    return report.status


def main_of_several(folder: Path, *, lock_patience: float = LOCK_PATIENCE) -> int:
    """One of several processes, started by `main`. The first of them listens and writes; any may say why it failed."""
    log, stop = EventLog(folder / EVENTS), StopSwitch()
    with _reported(log) as report:
        from finetuning.training.parallel import join, leave

        spec = Spec.read(folder / SPEC)
        is_main = join(use_gpu=spec.use_gpu).is_main
        stop.listen(reads_input=is_main)
        lock = _hold_lock(folder.parent / LOCK, stop, patience=lock_patience) if is_main else None
        result = _run(folder, spec, log if is_main else ignore, stop)
        leave()
        if lock is not None:
            log(Stopped() if result is None else Succeeded(result=result))
            os.close(lock)
    return report.status


def _become_launcher(folder: Path, *, processes: int) -> NoReturn:
    """The same process to its parent: its id, its input and its low priority stay."""
    arguments = [sys.executable, *launch_arguments(str(folder), processes=processes)]
    os.execv(sys.executable, arguments)  # noqa: S606 - our own interpreter, no shell


@dataclass
class Report:
    status: int = 0


@contextmanager
def _reported(log: EventLog) -> Iterator[Report]:
    """Whatever goes wrong: the parent learns of it from the log alone."""
    report = Report()
    try:
        yield report
    except StopRequested:
        log(Stopped())
    except Exception as error:
        report.status = 1
        log(_explain(error))
        traceback.print_exc()


def _run(folder: Path, spec: Spec, progress: Progress, stop: StopSwitch) -> dict[str, Any] | None:
    """The result; None when it was stopped. torch is loaded here, with the lock held and the parent heard."""
    from finetuning.training.evaluation import evaluate
    from finetuning.training.methods import sample_conversations, train
    from finetuning.training.preflight import preflight
    from finetuning.training.runs import RunOptions

    _check_device(spec.use_gpu)
    options = RunOptions(
        folder=folder,
        use_gpu=spec.use_gpu,
        system_prompt=spec.system_prompt,
        sample_prompts=sample_conversations(spec.sample_prompts),
        progress=progress,
        should_stop=stop,
    )
    match spec.mode:
        case Mode.PREFLIGHT:
            return preflight(spec, options)
        case Mode.TRAIN:
            return train(spec, options)
        case Mode.EVALUATE:
            return asdict(evaluate(spec, options))


def _earlier_result(log: EventLog) -> dict[str, Any] | None:
    """A run that had succeeded is not done again while its folders are there: its parent may have missed the end."""
    last = log.last() or {}
    result = last.get("result") if last.get("event") == Succeeded.__name__ else None
    return result if result and all(Path(path).is_dir() for path in result["folders"].values()) else None


def _hold_lock(file: Path, stop: StopSwitch, *, patience: float) -> int:
    """Held as long as the descriptor is open. A predecessor that lost its parent is given time to end."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if stop():
                raise StopRequested from None
            if time.monotonic() >= deadline:
                raise StillRunningError("Another process still works for this job and does not end.") from None
            time.sleep(0.1)
        else:
            return descriptor


def _check_device(use_gpu: str) -> None:
    from finetuning.training.precision import choose_device

    try:
        choose_device(use_gpu)
    except ValueError as error:
        raise DeviceError(str(error)) from error


def _explain(error: Exception) -> Failed:
    if isinstance(error, TrainingError):
        return Failed(code=error.code, message=error.message, details=error.details)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failed(code=DiskError.code, message=f"The disk is full: {error}.")
    if isinstance(error, MemoryError):
        return Failed(code="out_of_memory", message="There was not enough memory to load the data and the model.")
    lines = traceback.format_exception(error)
    return Failed(code="unexpected", message=f"{type(error).__name__}: {error}", details={"traceback": "".join(lines)})


if __name__ == "__main__":
    begin = main_of_several if LAUNCHED in sys.argv else main
    sys.exit(begin(Path(sys.argv[1]).resolve()))
