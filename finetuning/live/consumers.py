"""The sockets of the pages about jobs: say what is new as soon as something is, and look at least every few seconds."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any
from uuid import UUID

import structlog
from channels.consumer import get_handler_name
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import Error as DatabaseFault

from chat.broadcast import key_group, session_group, user_group
from chat.errors import ChatError, ForbiddenError, InvalidError, NotFoundError
from chat.events import ClientFrame, ErrorFrame, Ping, Pong, ServerEvent, encode
from chat.replies.database import reader
from chat.socket_access import SocketAccess
from chat.subscriptions import Outbox
from finetuning.live import feed
from finetuning.live.frames import parse_client_frame
from finetuning.live.nudges import JOBS_GROUP, job_group

logger = structlog.get_logger(__name__)

UNAUTHENTICATED = 4401
FORBIDDEN = 4403
NOT_FOUND = 4404
TRY_AGAIN_LATER = 1013
# The layer drops what it cannot deliver: the database is asked now and then even when nobody nudges.
LONGEST_SILENCE = 5.0
SHORTEST_PAUSE = 0.25


class JobConsumer(AsyncWebsocketConsumer):
    """Of one job when the address names it, else of the queue."""

    access: SocketAccess | None
    outbox: Outbox | None = None
    seen: feed.Seen | None = None
    telling: asyncio.Task[None] | None = None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:  # nobody says "disconnect" to one that failed or was cancelled
            self._end()

    async def dispatch(self, message: dict[str, Any]) -> None:
        """What is told to this person's chat sockets comes here too, for the sake of `access.ended`; it is let pass."""
        handler = getattr(self, get_handler_name(message), None)
        if handler is not None:
            await handler(message)

    async def connect(self) -> None:
        self.access = self.scope["access"]
        self.job_id: UUID | None = self.scope["url_route"]["kwargs"].get("job_id")
        await self.accept()
        if self.access is None:
            return await self.close(UNAUTHENTICATED)
        try:
            await reader.run(feed.check_asker, self.access.asker)
        except ForbiddenError as error:
            return await self._refuse(error)
        self.outbox = Outbox(self.send, self._overflow)
        self.news = asyncio.Event()
        for group in self._groups(self.access):
            await self.channel_layer.group_add(group, self.channel_name)

    async def disconnect(self, code: int) -> None:
        if self.outbox is None:
            return
        self._end()
        for group in self._groups(self.access):
            await self.channel_layer.group_discard(group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.outbox is None:
            return
        try:
            if text_data is None:
                raise InvalidError("The socket takes JSON text, not binary data.")
            self._answer(parse_client_frame(text_data))
        except ChatError as error:
            self._put(ErrorFrame.of(error, getattr(error, "request_id", None)))

    def _answer(self, frame: ClientFrame) -> None:
        if isinstance(frame, Ping):
            return self._put(Pong(request_id=frame.request_id))
        self.seen = feed.Seen(after_event=frame.after_event, after_step=frame.after_step)
        self.news.set()
        if self.telling is None:
            self.telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        """Until the socket is closed. Nudges that come while something is read are one more look, not many."""
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LONGEST_SILENCE):
                        await self.news.wait()
                self.news.clear()
                await self._tell_once()
                await asyncio.sleep(SHORTEST_PAUSE)
        except (ForbiddenError, NotFoundError) as error:
            await self._refuse(error)

    async def _tell_once(self) -> None:
        asked = self.seen
        try:
            frames, seen = await reader.run(feed.read_news, self.access.asker, self.job_id, asked)
        except DatabaseFault:
            return logger.exception("job_feed_failed")
        if self.seen is not asked:  # a new subscription came in between: it is answered by the next look
            return
        self.seen = seen
        for frame in frames:
            self._put(frame)

    async def job_changed(self, message: dict[str, Any]) -> None:
        self.news.set()

    async def queue_changed(self, message: dict[str, Any]) -> None:
        self.news.set()

    async def access_ended(self, message: dict[str, Any]) -> None:
        await self.close(UNAUTHENTICATED)

    async def _refuse(self, error: ChatError) -> None:
        codes = {feed.SignedOutError: UNAUTHENTICATED, NotFoundError: NOT_FOUND}
        await self.close(codes.get(type(error), FORBIDDEN))

    async def _overflow(self) -> None:
        await self.close(TRY_AGAIN_LATER)

    def _put(self, event: ServerEvent) -> None:
        self.outbox.put(encode(event))

    def _end(self) -> None:
        if self.telling is not None:
            self.telling.cancel()
        if self.outbox is not None:
            self.outbox.close()

    def _groups(self, access: SocketAccess) -> list[str]:
        groups = [job_group(self.job_id) if self.job_id else JOBS_GROUP, user_group(access.asker.user_id)]
        if access.asker.api_key_id is not None:
            groups.append(key_group(access.asker.api_key_id))
        if access.session_key_hash:
            groups.append(session_group(access.session_key_hash))
        return groups
