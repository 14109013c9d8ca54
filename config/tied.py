"""Becomes a command that the kernel ends with its parent: `python -I -S config/tied.py PARENT_PID COMMAND ...`.

Only the standard library and no Django: it runs before every process. Where the kernel has no such call
(anything but Linux), the command runs untied.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tie_to_parent(parent: int) -> None:
    """Ask for SIGKILL at the parent's death: a supervisor that was killed must leave no process behind it.

    Every process of Dialoop survives a SIGKILL by design, and one that is still saying goodbye would hold the
    port and the data folder against the next start.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call
        sys.exit(1)


if __name__ == "__main__":
    tie_to_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell, on purpose
