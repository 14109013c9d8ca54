"""Server-sent events out of bytes. Not httpx's own lines: those also split at U+2028 and U+0085 inside an answer."""

from __future__ import annotations

from models_hub.base import ProviderBadResponseError

MAX_EVENT_BYTES = 16 * 1024 * 1024


class SseDecoder:
    """Feed it what the network gives; it returns the data of every event that is whole."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Raises ProviderBadResponseError when an event never ends."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_EVENT_BYTES:
            raise ProviderBadResponseError("The provider sent an event that never ended.")
        events: list[bytes] = []
        for line in lines:
            self._read(line, events)
        return events

    def finish(self) -> list[bytes]:
        """The last event of a server that forgot the blank line after it."""
        return self.feed(b"\n\n")

    def _read(self, line: bytes, events: list[bytes]) -> None:
        if line.endswith(b"\r"):
            line = line[:-1]
        if line.startswith(b"data:"):
            self._data.append(line[5:].lstrip(b" "))
        elif not line and self._data:
            events.append(b"\n".join(self._data))
            self._data = []
