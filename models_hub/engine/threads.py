"""How many cores a step of the batch may use: all of them when the machine is ours, fewer as soon as it is not."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import torch

STAT = Path("/proc/stat")
LOOK_SECONDS = 0.5
# After a pause, what was used in it says nothing about now.
STALE_SECONDS = 5.0
# In cores. Between the two, things stay as they are.
QUIET, BUSY = 0.10, 0.25


class ThreadGovernor:
    """PyTorch's threads wait for each other by spinning, so one that has to share its core slows all of them.

    Measured with SmolLM2 in bfloat16 on two cores, tokens a second with 1 and 16 streams: two threads 23 and 237 on a
    quiet machine, but 5 and 50 beside one other busy process; one thread 18 and 157, and 14 and 125. Letting them
    sleep instead of spin (OMP_WAIT_POLICY) gives away as much as the second thread brings.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._looked_at = time.monotonic()
        self._before = read_cpu_seconds()

    def adjust(self) -> None:
        """Call it before a step, in the thread that computes: the number of threads belongs to the calling thread."""
        now = time.monotonic()
        elapsed = now - self._looked_at
        if elapsed < LOOK_SECONDS or self._before is None:
            return
        used = read_cpu_seconds()
        if used is not None and elapsed < STALE_SECONDS:
            others = max(0.0, (used - self._before) / elapsed)
            current = torch.get_num_threads()
            wanted = choose_threads(self._most, others, current)
            if wanted != current:
                torch.set_num_threads(wanted)
        self._looked_at, self._before = now, used


def choose_threads(most: int, others: float, current: int) -> int:
    """`others`: how many cores' worth other processes use of those that this one may run on."""
    if QUIET < others < BUSY:
        return current
    given_up = math.ceil(others - QUIET) if others >= BUSY else 0
    return max(1, most - given_up)


def read_cpu_seconds() -> float | None:
    """What all other processes have used so far of this process's share of the machine. None where it is not told."""
    try:
        fields = STAT.read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields)
    total = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return (total - time.process_time()) * len(os.sched_getaffinity(0)) / (os.cpu_count() or 1)
