"""Shows what the processes print on the terminal that supervisord runs in, beside the log files it keeps."""

from __future__ import annotations

import os
import select
import sys
from typing import Any

from supervisor import events

# A pipe takes this much in one piece, or not at all: a reader that sleeps must not stop supervisord.
CHUNK = select.PIPE_BUF


class Terminal:
    """Whole lines, each with its process' name. Lines that nobody reads are dropped here; the files have them."""

    def __init__(self, output: int) -> None:
        self._output = output
        self._poll = select.poll()
        self._poll.register(output, select.POLLOUT)
        self._unfinished: dict[str, bytes] = {}

    def on_output(self, event: events.ProcessLogEvent) -> None:
        name = event.process.config.name
        data = event.data if isinstance(event.data, bytes) else event.data.encode()
        *lines, self._unfinished[name] = (self._unfinished.get(name, b"") + data).split(b"\n")
        for line in lines:
            self.write(name, line)

    def on_death(self, event: events.ProcessStateExitedEvent) -> None:
        if not event.expected:
            self.write(event.process.config.name, b"has died and is started again")

    def write(self, name: str, line: bytes) -> None:
        prefix = b"" if name == "ready" else f"{name:<15} | ".encode()
        piece = prefix + line[: CHUNK - len(prefix) - 1] + b"\n"
        try:
            if any(state == select.POLLOUT for _, state in self._poll.poll(0)):
                os.write(self._output, piece)
        except OSError:
            return  # the terminal is gone; the processes go on


def show_process_output(supervisor: Any) -> Terminal:
    """Called by supervisord as a plug-in (see `supervisord.conf`), with itself."""
    terminal = Terminal(sys.stdout.fileno())
    events.subscribe(events.ProcessLogEvent, terminal.on_output)
    events.subscribe(events.ProcessStateExitedEvent, terminal.on_death)
    return terminal
