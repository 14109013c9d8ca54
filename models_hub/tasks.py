"""What beat asks of the models hub. When and in which queue: CELERY_BEAT_SCHEDULE and CELERY_TASK_ROUTES."""

from __future__ import annotations

from celery import shared_task

from models_hub import services
from models_hub.models import Connection


@shared_task
def check_connections() -> None:
    """So that a provider that went away is shown as down before somebody asks it, and as up again soon after."""
    for connection in Connection.objects.filter(is_enabled=True):
        services.test_connection(connection)
