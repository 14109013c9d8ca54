"""What one socket follows, and the order in which its frames leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from chat.events import ReplyEnded, ServerEvent, encode
from chat.replies import get_hub
from chat.replies.log import END, Entry
from chat.replies.watch import Watch

# A reader this far behind, or one that takes nothing for so long, is dropped with "try again later"; it comes back and
# resumes from the log. A long reply replayed at once is no backlog: a server that takes it all keeps up.
LARGEST_BACKLOG = 20_000
LONGEST_SEND = 30.0
SLOW_SEND = 0.1


class Outbox:
    """Frames leave in the order they were put, by one task; nobody who puts one waits."""

    def __init__(self, send: Callable[[str], Awaitable[None]], on_overflow: Callable[[], Awaitable[None]]) -> None:
        self._send = send
        self._on_overflow = on_overflow
        self._frames: asyncio.Queue[str] = asyncio.Queue()
        self._task = asyncio.create_task(self._run())

    def put(self, frame: str) -> None:
        self._frames.put_nowait(frame)

    def close(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            frame = await self._frames.get()
            began = loop.time()
            try:
                async with asyncio.timeout(LONGEST_SEND):
                    await self._send(frame)
            except TimeoutError:
                return await self._on_overflow()
            if self._frames.qsize() > LARGEST_BACKLOG and loop.time() - began > SLOW_SEND:
                return await self._on_overflow()
            if not self._frames.empty():
                await asyncio.sleep(
                    0
                )  # Daphne takes a frame without waiting: a long replay must not hold up the others


class Subscriptions:
    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._watches: dict[UUID, Watch] = {}
        self._conversation_of: dict[UUID, UUID] = {}
        self._conversations: set[UUID] = set()
        self._stop_requests: dict[UUID, list[str]] = {}
        self._seen: dict[UUID, int] = {}

    def put(self, event: ServerEvent) -> None:
        self._outbox.put(encode(event))

    def put_frame(self, frame: dict[str, Any]) -> None:
        self._outbox.put(encode(frame))

    def add(self, conversation_id: UUID) -> None:
        self._conversations.add(conversation_id)

    def follows(self, conversation_id: UUID) -> bool:
        return conversation_id in self._conversations

    def remove(self, conversation_id: UUID) -> None:
        self._conversations.discard(conversation_id)
        for message_id in [key for key, value in self._conversation_of.items() if value == conversation_id]:
            self._drop(message_id)

    async def follow(self, message: dict[str, Any], *, after: int = 0) -> None:
        """Show this reply: what is missing behind `after`, then live, then its end. Following it anew replays it."""
        message_id = UUID(message["id"])
        self._drop(message_id)
        watch = Watch(message_id, lambda entry: self._show(message_id, entry), after=after)
        self._watches[message_id] = watch
        self._conversation_of[message_id] = UUID(message["conversation_id"])
        end = encode(ReplyEnded(message=message)) if message["status"] not in ("pending", "streaming") else None
        await get_hub().add_watch(watch, end=end)

    async def show_beginning(self, frames: list[dict[str, Any]], reply: dict[str, Any], *, after: int) -> None:
        """A reply that began elsewhere. One that a subscribe has shown already (the news crossed it) stays as it is."""
        message_id = UUID(reply["id"])
        if message_id in self._watches or self._seen.get(message_id, 0) > after:
            return
        for frame in frames:
            self.put_frame(frame)
        await self.follow(reply, after=after)

    async def follow_end(self, message_id: UUID, request_id: str | None) -> None:
        """Answer with this reply's end, and only that when it is not followed already."""
        if request_id is not None:
            self._stop_requests.setdefault(message_id, []).append(request_id)
        if message_id not in self._watches:
            watch = Watch(message_id, lambda entry: self._show(message_id, entry, only_end=True))
            self._watches[message_id] = watch
            await get_hub().add_watch(watch)

    def close(self) -> None:
        for message_id in list(self._watches):
            self._drop(message_id)
        self._outbox.close()

    def _show(self, message_id: UUID, entry: Entry, *, only_end: bool = False) -> None:
        if entry.kind != END:
            if not only_end:
                self._outbox.put(entry.frame)
            return
        if watch := self._watches.pop(message_id, None):
            self._seen[message_id] = watch.after
        self._conversation_of.pop(message_id, None)
        requests = self._stop_requests.pop(message_id, [])
        for frame in [_with_request(entry.frame, request_id) for request_id in requests] or [entry.frame]:
            self._outbox.put(frame)

    def _drop(self, message_id: UUID) -> None:
        self._conversation_of.pop(message_id, None)
        if watch := self._watches.pop(message_id, None):
            get_hub().discard_watch(watch)


def _with_request(frame: str, request_id: str) -> str:
    return frame[:-1] + "," + encode({"request_id": request_id})[1:]
