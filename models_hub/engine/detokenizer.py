"""Turns token ids into text as they come, never showing half a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "�"


class IncrementalDetokenizer:
    """The joined results of `feed` equal `decode(all ids)`, less a character cut off at its end.

    A token may hold part of a character, and decoders treat the first token of a text specially, so each step decodes
    a short window that starts one settled step back, and shows only what can no longer change.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._settled_text = ""
        self._settled = 0
        self._shown = 0

    def feed(self, ids: Sequence[int]) -> str:
        """The new text these ids complete; may be empty."""
        self._ids.extend(ids)
        text = self._decode(self._ids)
        # A run of replacement characters at the end may still become characters: it waits.
        stable = text.rstrip(REPLACEMENT)
        new = self._new_part(stable)
        if len(stable) == len(text):
            self._settle()
        return new

    def _new_part(self, stable: str) -> str:
        start = len(self._settled_text) + self._shown
        new = stable[start:]
        self._shown += len(new)
        return new

    def _settle(self) -> None:
        """All is shown: keep only the ids since the last time as context for the next window."""
        self._ids = self._ids[self._settled :]
        self._settled = len(self._ids)
        self._settled_text = self._decode(self._ids)
        self._shown = 0
