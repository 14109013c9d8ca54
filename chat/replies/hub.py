"""The replies of this process: starts, stops and shows them, and looks after those that other processes left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import structlog
from django.db import DataError, IntegrityError
from django.db import Error as DatabaseFault
from redis.exceptions import RedisError

from chat.broadcast import Announcements
from chat.errors import BusyError
from chat.events import ReplyEnded, encode
from chat.markdown import render_block
from chat.replies import log, store
from chat.replies.database import reader, writer
from chat.replies.log import DELTA, END, Entry
from chat.replies.producer import Producer
from chat.replies.pump import Pump
from chat.replies.reaper import Reaper
from chat.replies.remote import CancelLine, RemoteLogs
from chat.replies.running import RunningReply
from chat.replies.start import ReplyJob, Started
from chat.replies.watch import Watch, said

P = ParamSpec("P")
T = TypeVar("T")
logger = structlog.get_logger(__name__)

MATERIALISE_EVERY = 1.0
# How long a stopping process waits for its last words to be kept.
LAST_WORDS = 5.0
RESTART_AFTER = 1.0
SERVICE_END = 0.5


class ReplyHub:
    """One a process and event loop. `start()` when the first socket opens or the server starts."""

    def __init__(self) -> None:
        self._pump = Pump(on_blocks=self._render_soon, on_fenced=self._abandon)
        self._remote = RemoteLogs(is_running=_is_running)
        self._reaper = Reaper(self._remote, runs_here=self._runs_here)
        self._cancel_line = CancelLine(self._cancel_here)
        self._renderers = ThreadPoolExecutor(1, thread_name_prefix="markdown")
        self._rendering: dict[UUID, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._services: list[asyncio.Task[Any]] = []
        self._announcements: Announcements | None = None
        self._is_stopping = False

    def start(self) -> None:
        """Start the pump, the reaper and what listens to other processes. Safe to call again."""
        if not self._services:
            self._announcements = Announcements()
            loops = (
                self._announcements.run,
                self._pump.run,
                self._materialise_forever,
                self._reaper.run,
                self._remote.run,
                self._cancel_line.run,
            )
            self._services = [asyncio.create_task(_keep_running(loop)) for loop in loops]

    async def begin(self, start: Callable[P, Started], /, *args: P.args, **kwargs: P.kwargs) -> Started:
        """Write what `start` writes and run its reply, even when the socket that asked goes away meanwhile."""
        return await asyncio.shield(self.spawn(self._begin(partial(start, *args, **kwargs))))

    async def _begin(self, start: Callable[[], Started]) -> Started:
        started = await writer.run(start)
        if started.job:
            self.run(started.job)
        return started

    def run(self, job: ReplyJob) -> None:
        """Produce this reply in a task of this process; no socket owns it."""
        self.start()
        reply = RunningReply(
            job.message_id,
            job.conversation_id,
            job.owner_token,
            content=job.content,
            reasoning=job.reasoning,
            last_sequence_number=job.last_sequence_number,
        )
        self._pump.add(reply)
        if self._is_stopping:
            reply.stop()
        reply.runner = self.spawn(self._run(reply, job))

    async def add_watch(self, watch: Watch, *, end: str | None = None) -> None:
        """Show what it has not seen and go on live, wherever the reply runs.

        `end`: the end frame of a reply that has ended; with its log gone, that is all there is to show.
        """
        self.start()
        reply = self._pump.replies.get(watch.message_id)
        if reply and not reply.is_seeded and watch.after < reply.first_sequence_number:
            # Its words of before; all its blocks are told by the reply itself.
            watch.show([entry for entry in await _read_log(watch.message_id) if entry.kind == DELTA])
            reply = self._pump.replies.get(watch.message_id)
        if reply:
            reply.add_watch(watch)
        elif end is None:
            await self._remote.add_watch(watch)
        else:
            await self._show_ended(watch, end)

    async def _show_ended(self, watch: Watch, end: str) -> None:
        entries = await _read_log(watch.message_id)
        if entries and entries[-1].kind != END:
            # Its row says so already, its log does not: the last words are still on their way from another process.
            return await self._remote.add_watch(watch)
        watch.show([*said(entries), Entry(0, 0, END, end)])

    async def settle(self, message_id: UUID) -> None:
        """Wait until a reply that is ending here has ended in its log too. Raises BusyError when that takes long."""
        reply = self._pump.replies.get(message_id)
        if reply and reply.is_ending and reply.runner:
            _, unfinished = await asyncio.wait([reply.runner], timeout=LAST_WORDS)
            if unfinished:
                raise BusyError("The end of this reply is still being kept. Try again in a moment.")

    def discard_watch(self, watch: Watch) -> None:
        if reply := self._pump.replies.get(watch.message_id):
            reply.discard_watch(watch)
        self._remote.discard_watch(watch)

    async def cancel(self, message_id: UUID) -> None:
        """Stop it, here or wherever it runs. The stored marker is set already and finds it in the end."""
        if not self._cancel_here(message_id):
            await self._cancel_line.send(message_id)

    async def stop(self) -> None:
        """The process ends: its replies are interrupted with every word they have, and say so."""
        self._is_stopping = True
        for reply in self._pump.replies.values():
            reply.stop()
        try:
            async with asyncio.timeout(LAST_WORDS):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        except TimeoutError:
            logger.warning("last_words_not_kept", replies=len(self._pump.replies))
        await self._end_services()
        if self._announcements is not None:
            await self._announcements.close()
        self._renderers.shutdown(wait=False)

    async def _end_services(self) -> None:
        """Cancel until all have ended: a client library has been seen to swallow a cancellation."""
        while self._services:
            for service in self._services:
                service.cancel()
            _, unfinished = await asyncio.wait(self._services, timeout=SERVICE_END)
            self._services = list(unfinished)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run it to its end, whatever becomes of the socket that asked."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _runs_here(self, message_id: UUID, owner_token: UUID) -> bool:
        reply = self._pump.replies.get(message_id)
        return reply is not None and reply.owner_token == owner_token

    def _cancel_here(self, message_id: UUID) -> bool:
        reply = self._pump.replies.get(message_id)
        if reply is None:
            return False
        self._stop(reply)
        return True

    def _stop(self, reply: RunningReply) -> None:
        if not reply.is_ending:
            reply.cancel_requested = True
            reply.stop()

    async def _run(self, reply: RunningReply, job: ReplyJob) -> None:
        try:
            await self._produce(reply, job)
        except Exception:  # whatever it was: without its heartbeat the reaper ends it, with the words in the log
            logger.exception("reply_not_ended", message_id=str(reply.message_id))
            await self._pump.logged(reply)
            self._abandon(reply)

    async def _produce(self, reply: RunningReply, job: ReplyJob) -> None:
        if job.last_sequence_number:
            reply.resume(log_is_gone=not await self._log_exists(reply))
            self._pump.wake()
        producer = Producer(reply, job, on_text=self._pump.wake)
        # Only this inner task is ever cancelled: what follows keeps the words.
        reply.task = asyncio.create_task(producer.produce())
        if reply.is_told_to_stop:
            reply.task.cancel()
        (outcome,) = await asyncio.gather(reply.task, return_exceptions=True)
        reply.is_ending = True
        if not reply.is_lost:
            await producer.count(outcome)
            await self._end(reply, producer.end(outcome))

    async def _log_exists(self, reply: RunningReply) -> bool:
        try:
            return await log.exists(reply.message_id)
        except (RedisError, OSError):
            return True

    async def _end(self, reply: RunningReply, end: store.ReplyEnd) -> None:
        reply.cut()
        reply.finish_blocks()
        await self._rendered(reply)
        end.html, end.last_sequence_number = "".join(reply.html), reply.sequence_number
        message = await self._keep_end(reply, end)
        if message is None:
            return self._abandon(reply)
        reply.add_end(encode(ReplyEnded(message=message)))
        self._pump.wake()
        await reply.logged_everything.wait()
        self._pump.discard(reply)

    async def _keep_end(self, reply: RunningReply, end: store.ReplyEnd) -> dict[str, Any] | None:
        """Write the end, for as long as it takes: while the database is away the words stay here.

        Raises DataError or IntegrityError for an end that no database will ever keep.
        """
        delay = 0.2
        while True:
            try:
                return await writer.run(store.end_reply, reply.message_id, reply.owner_token, end)
            except (DataError, IntegrityError):
                raise
            except DatabaseFault as error:
                logger.warning("reply_end_not_kept_yet", error=type(error).__name__)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)

    def _abandon(self, reply: RunningReply) -> None:
        """Somebody else ended this reply: stop the model, and let our watchers follow the log instead."""
        if reply.is_lost:
            return
        reply.is_lost = True
        self._pump.discard(reply)
        reply.stop()
        reply.logged_everything.set()
        for watch in reply.hand_over():
            self.spawn(self._remote.add_watch(watch))

    def _render_soon(self, reply: RunningReply) -> None:
        if reply.message_id not in self._rendering:
            task = self.spawn(self._render(reply))
            self._rendering[reply.message_id] = task
            task.add_done_callback(lambda _: self._rendering.pop(reply.message_id, None))

    async def _render(self, reply: RunningReply) -> None:
        loop = asyncio.get_running_loop()
        while reply.unrendered:
            block = reply.unrendered.pop(0)
            reply.add_block(block, await loop.run_in_executor(self._renderers, render_block, block.source))
        self._pump.wake()

    async def _rendered(self, reply: RunningReply) -> None:
        """Until every finished block is HTML."""
        while reply.unrendered or reply.message_id in self._rendering:
            self._render_soon(reply)
            await self._rendering[reply.message_id]

    async def _materialise_forever(self) -> None:
        while True:
            await asyncio.sleep(MATERIALISE_EVERY)
            replies = [reply for reply in self._pump.replies.values() if not reply.is_ending]
            if not replies:
                continue
            progress = [item for reply in replies if (item := reply.progress())]
            owned = [(reply.message_id, reply.owner_token) for reply in replies]
            try:
                found = await writer.run(store.materialise, progress, owned)
            except DatabaseFault as error:
                logger.warning("replies_not_materialised", replies=len(progress), error=type(error).__name__)
                continue
            for reply in replies:
                if reply.is_ending:  # meanwhile, so it is not lost: its end is on its way
                    continue
                if reply.message_id in found.cancelled:
                    self._stop(reply)
                elif reply.message_id in found.lost:
                    self._abandon(reply)


async def _is_running(message_id: UUID) -> bool:
    try:
        return await reader.run(store.is_running, message_id)
    except DatabaseFault:
        return False


async def _read_log(message_id: UUID) -> list[Entry]:
    """Nothing while Valkey is away: then the end frame, which has the whole text, is what there is to show."""
    try:
        return await log.read(message_id)
    except (RedisError, OSError):
        return []


async def _keep_running(loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """A service that stumbles begins anew: without it all replies of this process would stand still for ever."""
    while True:
        try:
            await loop()
        except Exception:  # whatever it was, the others' replies go on
            logger.exception("reply_service_failed", service=loop.__qualname__)
            await asyncio.sleep(RESTART_AFTER)
