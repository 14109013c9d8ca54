"""One pump a process: cuts every running reply's new text into numbered deltas, logs them together, then shows them.

Nothing reaches a watcher that the log has not acknowledged. While Valkey is away the replies go on in memory; when it
is back everything is appended again (ids it has already are passed over), so that a log that lost something is whole.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from uuid import UUID

import structlog
from redis.exceptions import RedisError

from chat.replies import log
from chat.replies.running import RunningReply

logger = structlog.get_logger(__name__)

SHORTEST_PAUSE = 0.040
LONGEST_PAUSE = 0.250
# How busy the event loop's thread may be; above it the pause widens, so that deltas grow instead of queueing up.
BUSY_SHARE = 0.6
WIDEN, NARROW = 1.4, 0.8
HEARTBEAT_EVERY = 2.0


class Pump:
    def __init__(self, on_blocks: Callable[[RunningReply], None], on_fenced: Callable[[RunningReply], None]) -> None:
        self.replies: dict[UUID, RunningReply] = {}
        self._on_blocks = on_blocks
        self._on_fenced = on_fenced
        self._wake = asyncio.Event()
        self._log_everything = False
        self._last_beat = 0.0

    def add(self, reply: RunningReply) -> None:
        self.replies[reply.message_id] = reply
        self._last_beat = 0.0
        self.wake()

    def discard(self, reply: RunningReply) -> None:
        if self.replies.get(reply.message_id) is reply:
            del self.replies[reply.message_id]

    def wake(self) -> None:
        """There is something new. The first word after a silence goes out at once."""
        self._wake.set()

    async def logged(self, reply: RunningReply) -> None:
        """Until the log has all that the reply has said so far."""
        while not reply.is_lost and reply.logged < len(reply.entries):
            self.wake()
            await asyncio.sleep(SHORTEST_PAUSE)

    async def run(self) -> None:
        """Until cancelled."""
        pause = SHORTEST_PAUSE
        while True:
            await self._wait()
            self._wake.clear()
            started, worked = time.monotonic(), time.thread_time()
            is_logged = await self._tick()
            await asyncio.sleep(pause if is_logged else LONGEST_PAUSE)
            busy = (time.thread_time() - worked) / (time.monotonic() - started)
            pause = min(LONGEST_PAUSE, max(SHORTEST_PAUSE, pause * (WIDEN if busy > BUSY_SHARE else NARROW)))

    async def _wait(self) -> None:
        """Until there is something new, or a heartbeat or a failed append is due."""
        if self._log_everything:
            return
        timeout = HEARTBEAT_EVERY if self.replies else None
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _tick(self) -> bool:
        """Append what is new. False when Valkey did not take it; then all of it is tried again."""
        batch = []
        for reply in tuple(self.replies.values()):
            reply.cut()
            if reply.unrendered:
                self._on_blocks(reply)
            keep = log.KEEP_AFTER_END if reply.has_ended else log.KEEP_RUNNING
            if item := reply.append(again=self._log_everything, keep=keep):
                batch.append((reply, item, len(reply.entries)))
        try:
            if batch:
                await log.append([item for _, item, _ in batch])
            await self._beat()
        except (RedisError, OSError) as error:
            if not self._log_everything:
                logger.warning("reply_log_unreachable", replies=len(self.replies), error=type(error).__name__)
            self._log_everything = True
            return False
        self._log_everything = False
        for reply, item, count in batch:
            if item.fenced:
                self._on_fenced(reply)
            elif item.has_gap:
                reply.log_has_gap = True
                self.wake()
            else:
                reply.acknowledge(count)
        return True

    async def _beat(self) -> None:
        now = time.monotonic()
        if self.replies and now - self._last_beat >= HEARTBEAT_EVERY:
            await log.beat([(reply.message_id, reply.owner_token) for reply in self.replies.values()])
            self._last_beat = now
