"""Somebody who watches one reply: is shown every delta once and in order, whoever replays what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from chat.replies.log import DELTA, END, RESUME, Entry


class Watch:
    """`deliver` is called from the event loop with one frame at a time and must not block."""

    def __init__(self, message_id: UUID, deliver: Callable[[Entry], None], *, after: int = 0) -> None:
        self.message_id = message_id
        self.after = after
        self._deliver = deliver

    def show(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.kind == DELTA:
                if entry.sequence_number <= self.after:
                    continue
                self.after = entry.sequence_number
            self._deliver(entry)


def visible(entries: Sequence[Entry]) -> list[Entry]:
    """What of a log is shown: an end that was continued is none."""
    return [
        entry
        for place, entry in enumerate(entries)
        if entry.kind != RESUME and (entry.kind != END or place == len(entries) - 1)
    ]
