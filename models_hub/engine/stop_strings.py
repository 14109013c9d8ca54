"""Ends a text at the first of up to four stop strings, holding back what may be the beginning of one."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """`feed` returns the text that is safe to show; `found` says that a stop string ended it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        if self.found or not self._stops:
            return "" if self.found else text
        buffer = self._held + text
        hits = [position for stop in self._stops if (position := buffer.find(stop)) >= 0]
        if hits:
            self.found = True
            self._held = ""
            return buffer[: min(hits)]
        keep = max(_overlap(buffer, stop) for stop in self._stops)
        self._held = buffer[len(buffer) - keep :]
        return buffer[: len(buffer) - keep]

    def finish(self) -> str:
        """What was held back and turned out to be ordinary text."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)
