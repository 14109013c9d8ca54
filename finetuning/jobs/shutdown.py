"""Whether this process has been asked to end. Its trainings then stop at a checkpoint and wait for the next worker."""

from __future__ import annotations

import threading

_requested = threading.Event()


def request() -> None:
    """Also from a signal handler."""
    _requested.set()


def is_requested() -> bool:
    return _requested.is_set()


def withdraw() -> None:
    """For a process that goes on after all."""
    _requested.clear()
