"""Tells the worker at once that somebody took something back; beat asks every minute anyway."""

from __future__ import annotations

import structlog
from django.db import transaction
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from config.celery import app

log = structlog.get_logger(__name__)

# By its name: what trains may know what people said, and not the other way round.
CLEAR_WITHDRAWN = "finetuning.tasks.clear_withdrawn"


def nudge_withdrawal() -> None:
    """Once the current transaction is kept, have examples of withdrawn conversations cleared."""
    transaction.on_commit(_send)


def _send() -> None:
    try:
        app.send_task(CLEAR_WITHDRAWN, retry=False)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("nudge_not_sent", task=CLEAR_WITHDRAWN, error=type(error).__name__)
