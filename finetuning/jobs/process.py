"""The child process of a job: its own group, a pipe as its standard input, and an end that never takes long."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from django.conf import settings

from config.file_lock import file_lock
from finetuning.jobs.folders import LOG
from finetuning.training.environment import CHILD_ENVIRONMENT

MODULE = "finetuning.training.child"
PID = "child.pid"
# After it was asked to stop: a cancelled job has ended within ten seconds on a busy machine too.
TERM_AFTER, KILL_AFTER = 4.0, 7.0
VMSTAT = Path("/proc/vmstat")


# What a training never needs. Models and their libraries run in it: they find no key there.
SECRETS = frozenset(
    {
        *("SECRET_KEY", "ENCRYPTION_KEYS", "ENGINE_API_KEY", "OPENAI_API_KEY", "HUGGINGFACE_API_TOKEN"),
        *("DATABASE_URL", "REDIS_URL", "EMAIL_URL", "DJANGO_SUPERUSER_PASSWORD"),
    }
)


def child_environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.copy().items() if name not in SECRETS}
    return {**inherited, **CHILD_ENVIRONMENT}


class ChildProcess:
    """Started at once. `poll` again and again until it gives a status; it also drives the escalation of `stop`."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        self._oom_kills = count_oom_kills()
        self._stopped_at: float | None = None
        self._signals = [(TERM_AFTER, signal.SIGTERM), (KILL_AFTER, signal.SIGKILL)]
        self._was_killed = False
        with (folder / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=settings.BASE_DIR,
                env=child_environment(),
                # Not a session of its own: the kernel would undo its low priority (autogroup).
                process_group=0,
            )
        with contextlib.suppress(OSError):
            (folder.parent / PID).write_text(str(self._process.pid))

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """The exit status; negative: the signal it died of. None while it runs."""
        status = self._process.poll()
        if status is None:
            self._escalate()
            return None
        self._signal(signal.SIGKILL)  # what it has started itself, and left behind
        self._close_pipe()
        return status

    def stop(self) -> None:
        """Ask it to end at a checkpoint; more than once is as good as once."""
        if self._stopped_at is not None:
            return
        self._stopped_at = time.monotonic()
        with contextlib.suppress(OSError):
            self._process.stdin.write(b"stop\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        self._was_killed = True
        self._signal(signal.SIGKILL)

    def was_killed_for_memory(self) -> bool:
        """Killed, not by us, and the kernel has killed something for memory meanwhile."""
        is_killed = self._process.returncode == -signal.SIGKILL and not self._was_killed
        return is_killed and count_oom_kills() > self._oom_kills

    def _escalate(self) -> None:
        if self._stopped_at is None or not self._signals:
            return
        seconds, number = self._signals[0]
        if time.monotonic() - self._stopped_at >= seconds:
            self._signals.pop(0)
            self._was_killed = self._was_killed or number == signal.SIGKILL
            self._signal(number)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _close_pipe(self) -> None:
        with contextlib.suppress(OSError):
            self._process.stdin.close()


def count_oom_kills() -> int:
    """Processes that the kernel has killed for memory since it was started; 0 where it does not say."""
    try:
        found = re.search(r"^oom_kill (\d+)$", VMSTAT.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def is_held(lock: Path) -> bool:
    """Whether a child still works in this job's folder: one that has lost its parent takes a while to end."""
    with file_lock(lock) as is_free:
        return not is_free


def kill_orphan(job_folder: Path) -> None:
    """The child of a worker that died, when it does not end by itself. Only a process that works in this folder."""
    try:
        pid = int((job_folder / PID).read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return
    if str(job_folder).encode() in command:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
