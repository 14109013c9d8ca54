"""Tells a worker what there is to do. The rows say it too: when the broker is away, the next tick finds them."""

from __future__ import annotations

from uuid import UUID

import structlog
from django.db import transaction
from kombu.exceptions import OperationalError

from config.celery import app

log = structlog.get_logger(__name__)


def send(task: str, row_id: UUID | int) -> None:
    """Have a task of `finetuning.tasks` run for a row, once the current transaction is kept."""
    transaction.on_commit(lambda: _send(f"finetuning.tasks.{task}", str(row_id)))


def _send(task: str, row_id: str) -> None:
    try:
        app.send_task(task, [row_id], retry=False)
    except OperationalError:
        log.warning("task_not_sent", task=task)
