"""The log of a run: one JSON line for each event, appended whole. A parent tails it from a byte offset of its own."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetuning.training.errors import DiskError
from finetuning.training.events import Event

BLOCK = 64 * 1024


class EventLog:
    """Appends to `file`; each call is one write to the operating system, so a killed process loses no line it wrote."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, event: Event) -> None:
        """Raises `DiskError`, and leaves no half line behind."""
        line = json.dumps({**_plain(event.to_dict()), "at": datetime.now(UTC).isoformat()}) + "\n"
        try:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                _write_whole(descriptor, line.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DiskError(f"{self._file.name} could not be written: {error}") from error

    def repair(self) -> None:
        """Takes away a last line without its end, which a process was killed in writing. Nobody has read it."""
        if self._file.exists():
            os.truncate(self._file, self._whole_bytes())

    def last(self) -> dict[str, Any] | None:
        """The last event, when it is whole."""
        if not self._file.exists():
            return None
        with self._file.open("rb") as stream:
            lines = stream.read()[: self._whole_bytes()].splitlines()
        return json.loads(lines[-1]) if lines else None

    def _whole_bytes(self) -> int:
        """The bytes up to the last line end, found from the end: a log may be long."""
        with self._file.open("rb") as stream:
            position = stream.seek(0, os.SEEK_END)
            while position:
                start = max(0, position - BLOCK)
                stream.seek(start)
                found = stream.read(position - start).rfind(b"\n")
                if found >= 0:
                    return start + found + 1
                position = start
        return 0


def _write_whole(descriptor: int, data: bytes) -> None:
    before = os.fstat(descriptor).st_size
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        os.truncate(descriptor, before)
        raise


def _plain(value: Any) -> Any:
    """What JSON and every database can hold: no dataclass, no path, no infinity, no NUL character."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    return value if value is None or isinstance(value, bool | int) else str(value)
