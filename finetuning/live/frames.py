"""The wire contract of `/ws/jobs/` and `/ws/jobs/<id>/`: one strict class per frame, parsed and printed here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chat import events
from chat.errors import InvalidError
from chat.events import ClientFrame, Ping, ServerEvent

LARGEST_ID = 2**63 - 1


def _whole(low: int, high: int) -> Callable[[Any, str], int]:
    def parse(value: Any, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidError(f"{name} must be a whole number from {low} to {high}.")
        return value

    return parse


# --- client to server -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class JobSubscribe(ClientFrame):
    """Show this job, or the queue, from now on; of a job only what comes behind this event and this step."""

    type = "job.subscribe"
    parsers = {"after_event": (_whole(0, LARGEST_ID), 0), "after_step": (_whole(-1, 2**31), -1)}
    after_event: int
    after_step: int


CLIENT_FRAMES: dict[str, type[ClientFrame]] = {frame.type: frame for frame in (JobSubscribe, Ping)}


def parse_client_frame(text: str) -> ClientFrame:
    """Raises RefusedFrameError: not JSON, not an object, an unknown type, an unknown or wrong field."""
    return events.parse_client_frame(text, CLIENT_FRAMES)


# --- server to client -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class JobUpdated(ServerEvent):
    type = "job.updated"
    job: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class JobMetrics(ServerEvent):
    """In the order of their steps. A step that was sent before replaces what was sent then."""

    type = "job.metrics"
    job_id: str
    metrics: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class JobEvents(ServerEvent):
    """Lines of the log, oldest first. Their ids grow; the last one is where to go on after a reconnect."""

    type = "job.events"
    job_id: str
    events: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class QueueUpdated(ServerEvent):
    """Whether the queue is paused, and every job that has not ended."""

    type = "queue.updated"
    queue: dict[str, Any]
