"""Waiting for something to become true, with an end to patience."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 30.0


def wait_until(is_true: Callable[[], object], *, patience: float = PATIENCE, what: str = "") -> None:
    """Ask again and again until the answer is true. Raises AssertionError when patience ends."""
    deadline = time.monotonic() + patience
    while not is_true():
        assert time.monotonic() < deadline, f"still not true after {patience:.0f} s: {what or is_true}"
        time.sleep(0.02)
