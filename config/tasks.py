"""House-keeping that beat asks for. When and in which queue: CELERY_BEAT_SCHEDULE and CELERY_TASK_ROUTES."""

from __future__ import annotations

from celery import shared_task
from django.core.management import call_command


@shared_task
def clear_expired_sessions() -> None:
    call_command("clearsessions")
