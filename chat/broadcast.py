"""The one door by which events about a person's conversations leave, after the transaction that made them is kept.

The channel layer carries these and nothing else: a reply's deltas go through its log (`chat/replies`).
"""

from __future__ import annotations

from typing import Any

import structlog
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction
from redis.exceptions import RedisError

from chat.events import ServerEvent

log = structlog.get_logger(__name__)


def user_group(user_id: int) -> str:
    return f"user.{user_id}"


def key_group(api_key_id: int) -> str:
    return f"key.{api_key_id}"


def session_group(session_key_hash: str) -> str:
    return f"session.{session_key_hash[:40]}"


def announce(user_id: int, event: ServerEvent) -> None:
    """Tell all sockets of this person, once the current transaction has been kept."""
    _send_on_commit(user_group(user_id), {"type": "conversation.event", "frame": event.to_dict()})


def end_sockets(
    *, user_id: int | None = None, api_key_id: int | None = None, session_key_hash: str | None = None
) -> None:
    """Close with 4401 the sockets opened by this person, with this key, or in this browser session."""
    for group in (
        user_group(user_id) if user_id is not None else None,
        key_group(api_key_id) if api_key_id is not None else None,
        session_group(session_key_hash) if session_key_hash is not None else None,
    ):
        if group:
            _send_on_commit(group, {"type": "access.ended"})


def _send_on_commit(group: str, message: dict[str, Any]) -> None:
    transaction.on_commit(lambda: _send(group, message))


def _send(group: str, message: dict[str, Any]) -> None:
    """The change itself is kept already: with Valkey away for a moment, a page learns of it on its next load."""
    try:
        async_to_sync(get_channel_layer().group_send)(group, message)
    except (RedisError, OSError):
        log.warning("announcement_not_sent", group=group, kind=message["type"])
