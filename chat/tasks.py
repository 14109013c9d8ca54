"""Background work about conversations."""

from __future__ import annotations

from celery import shared_task

from chat.services import purge_deleted_conversations


@shared_task(queue="default")
def purge_bin() -> int:
    return purge_deleted_conversations()
