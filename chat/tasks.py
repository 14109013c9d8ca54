"""Background work about conversations. When and in which queue: the settings say."""

from __future__ import annotations

from celery import shared_task

from chat.services import purge_deleted_conversations


@shared_task
def purge_bin() -> int:
    return purge_deleted_conversations()
