"""The one door by which events about a person's conversations leave, after the transaction that made them is kept.

The channel layer carries these and nothing else: a reply's deltas go through its log (`chat/replies`).
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

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


def tell(group: str, message: dict[str, Any]) -> None:
    """Send behind what was sent before. Where the replies run, nobody waits for it; elsewhere it is sent at once."""
    line = Announcements.current
    if line is None or not line.put(group, message):
        async_to_sync(_send)(group, message)


class Announcements:
    """The line in which a process's announcements leave, one after another, behind what people wait for.

    Sending each from the thread that made it would open an event loop and a connection for every one.
    """

    current: ClassVar[Announcements | None] = None

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        Announcements.current = self

    def put(self, group: str, message: dict[str, Any]) -> bool:
        """From any thread. False when the loop has ended."""
        try:
            self._loop.call_soon_threadsafe(self._waiting.put_nowait, (group, message))
        except RuntimeError:
            return False
        return True

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await _send(*await self._waiting.get())

    async def close(self) -> None:
        """Send what waits; from now on everybody sends his own."""
        if Announcements.current is self:
            Announcements.current = None
        while not self._waiting.empty():
            await _send(*self._waiting.get_nowait())


def _send_on_commit(group: str, message: dict[str, Any]) -> None:
    transaction.on_commit(lambda: tell(group, message))


async def _send(group: str, message: dict[str, Any]) -> None:
    """The change itself is kept already: with Valkey away for a moment, a page learns of it on its next load."""
    try:
        await get_channel_layer().group_send(group, message)
    except (RedisError, OSError):
        log.warning("announcement_not_sent", group=group, kind=message["type"])
