"""Tells the open pages that a job or the queue has changed. A nudge only: the pages read the database, the truth."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import transaction

from chat.broadcast import tell

JOBS_GROUP = "jobs"


def job_group(job_id: UUID | str) -> str:
    return f"job.{UUID(str(job_id)).hex}"


def announce_job(job_id: UUID | str) -> None:
    """From any thread without an event loop, once the current transaction has been kept. Never raises for Valkey."""
    message = {"type": "job.changed", "job_id": str(job_id)}
    _nudge(job_group(job_id), message)
    _nudge(JOBS_GROUP, message)


def announce_queue() -> None:
    """The queue was paused or opened, or its order has changed."""
    _nudge(JOBS_GROUP, {"type": "queue.changed"})


def _nudge(group: str, message: dict[str, Any]) -> None:
    transaction.on_commit(lambda: tell(group, message))
