"""Somebody who watches one reply: is shown every delta once and in order, whoever replays what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from chat.replies.log import BLOCK, DELTA, END, RESUME, Entry


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


def said(entries: Sequence[Entry]) -> list[Entry]:
    """What a log says without its end."""
    return [entry for entry in visible(entries) if entry.kind != END]


def visible(entries: Sequence[Entry]) -> list[Entry]:
    """What of a log is shown: an end that was continued is none, and the blocks before it are told anew behind it."""
    resumed = max((place for place, entry in enumerate(entries) if entry.kind == RESUME), default=0)
    first_shown = {DELTA: 0, BLOCK: resumed, END: len(entries) - 1, RESUME: len(entries)}
    return [entry for place, entry in enumerate(entries) if place >= first_shown[entry.kind]]
