"""The one door by which events about a person's conversations leave, after the transaction that made them is kept.

The channel layer carries these and nothing else: a reply's deltas go through its log (`chat/replies`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction
from redis.exceptions import RedisError

from chat.events import ConversationCreated, ConversationUpdated, ServerEvent

if TYPE_CHECKING:
    from chat.replies.start import Started

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


async def announce_reply(user_id: int, started: Started, *, origin: str) -> None:
    """Tell the person's other sockets that this one began a reply; those that follow the conversation show it."""
    kind = ConversationCreated if started.is_new_conversation else ConversationUpdated
    message = {
        "type": "reply.begun",
        "origin": origin,
        "after": started.sequence_number,
        "reply": started.reply,
        "conversation": kind(conversation=started.conversation).to_dict(),
        "frames": [event.to_dict() for event in started.message_events(None)],
    }
    try:
        await get_channel_layer().group_send(user_group(user_id), message)
    except (RedisError, OSError):
        log.warning("announcement_not_sent", group=user_group(user_id), kind=message["type"])


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
