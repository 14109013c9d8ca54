"""Bulk writes in small transactions with a pause between them: SQLite has one writer, and chat must not wait for it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

BATCH_ROWS = 100
PAUSE_SECONDS = 0.02


def in_batches(items: Iterable[T], size: int = BATCH_ROWS) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


class Pace:
    """Keeps the database free for a moment between two writes. What else takes time counts as the pause."""

    def __init__(self) -> None:
        self._ended = 0.0

    def wait(self) -> None:
        """Call it before a write ..."""
        left = self._ended + PAUSE_SECONDS - time.monotonic()
        if left > 0:
            time.sleep(left)

    def ended(self) -> None:
        """... and this after it."""
        self._ended = time.monotonic()


def politely(items: Iterable[T], size: int = BATCH_ROWS) -> Iterator[list[T]]:
    """Batches, each of which the caller writes before it takes the next."""
    pace = Pace()
    for batch in in_batches(items, size):
        pace.wait()
        yield batch
        pace.ended()
