"""Replies that run in another process: one shared blocking read follows their logs, a message stops them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog
from redis.exceptions import RedisError

from chat.replies import log
from chat.replies.log import END, Entry
from chat.replies.watch import Watch, said
from config.valkey import get_valkey

logger = structlog.get_logger(__name__)

BLOCK_MS = 2000
RETRY_AFTER = 0.5
CANCEL_CHANNEL = "replies:cancel"


class _Followed:
    """A reply's log as far as it was read, and who watches it here."""

    def __init__(self) -> None:
        self.said: list[Entry] = []
        self.watches: set[Watch] = set()
        self.place = (0, 0)

    @property
    def position(self) -> str:
        return "{}-{}".format(*self.place)

    def take(self, fresh: list[Entry], end: Entry | None) -> None:
        unread = [entry for entry in fresh if entry.place > self.place]
        self.place = max(self.place, *(entry.place for entry in unread), (0, 0))
        self.said += said(unread)
        shown = [*said(unread), *([end] if end else [])]
        for watch in tuple(self.watches):
            watch.show(shown)


class RemoteLogs:
    """Follows any number of logs with one XREAD."""

    def __init__(self, is_running: Callable[[UUID], Awaitable[bool]]) -> None:
        self._is_running = is_running
        self._followed: dict[UUID, _Followed] = {}
        self._has_work = asyncio.Event()
        self._wake_key = f"replies:wake:{uuid.uuid4()}"

    @property
    def message_ids(self) -> list[UUID]:
        return list(self._followed)

    async def add_watch(self, watch: Watch) -> None:
        """Replay what is known and go on live; a log not followed yet arrives whole with the next read."""
        followed = self._followed.setdefault(watch.message_id, _Followed())
        watch.show(followed.said)
        followed.watches.add(watch)
        self._has_work.set()
        try:
            await log.wake(self._wake_key)
        except (RedisError, OSError):
            logger.info("log_reader_not_woken")  # its read is failing as well, and begins anew

    def discard_watch(self, watch: Watch) -> None:
        followed = self._followed.get(watch.message_id)
        if followed is None:
            return
        followed.watches.discard(watch)
        if not followed.watches:
            del self._followed[watch.message_id]

    def end(self, message_id: UUID, entries: list[Entry], frame: str) -> None:
        """Say the end of a reply whose log, which has these entries, will never tell it."""
        if followed := self._followed.pop(message_id, None):
            followed.take(entries, Entry(0, 0, END, frame))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if not self._followed:
                self._has_work.clear()
                await self._has_work.wait()
            try:
                await self._read()
            except (RedisError, OSError):
                await asyncio.sleep(RETRY_AFTER)

    async def _read(self) -> None:
        positions = {message_id: followed.position for message_id, followed in self._followed.items()}
        for message_id, entries in await log.read_new(positions, wake_key=self._wake_key, block_ms=BLOCK_MS):
            end = entries[-1] if entries[-1].kind == END else None
            # The end of a reply that runs is an earlier one: it was continued a moment ago.
            if end and await self._is_running(message_id):
                end = None
            if followed := self._followed.get(message_id):
                followed.take(entries, end)
                if end:
                    del self._followed[message_id]


class CancelLine:
    """Carries a stop to the process that runs the reply."""

    def __init__(self, cancel: Callable[[UUID], bool]) -> None:
        self._cancel = cancel

    async def send(self, message_id: UUID) -> None:
        try:
            await get_valkey().publish(CANCEL_CHANNEL, str(message_id))
        except (RedisError, OSError):
            logger.info("stop_found_by_marker", message_id=str(message_id))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._listen()
            except (RedisError, OSError):
                await asyncio.sleep(RETRY_AFTER)

    async def _listen(self) -> None:
        async with get_valkey().pubsub() as channel:
            await channel.subscribe(CANCEL_CHANNEL)
            while True:
                message = await channel.get_message(ignore_subscribe_messages=True, timeout=20)
                if message:
                    self._cancel(UUID(message["data"]))
