"""Ends replies whose process died: interrupted, with every word that was in the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from uuid import UUID

import structlog
from django.db import DataError, IntegrityError
from django.db import Error as DatabaseFault
from redis.exceptions import RedisError

from chat.events import ReplyEnded, encode
from chat.markdown import render
from chat.models import Message
from chat.replies import log, store
from chat.replies.database import reader, writer
from chat.replies.log import DELTA, HEARTBEAT_TTL, Entry
from chat.replies.remote import RemoteLogs
from chat.replies.store import ReplyEnd
from chat.serializers import message_to_dict

logger = structlog.get_logger(__name__)

EVERY = 2.0
# Longer than from one heartbeat to the next: Valkey or the whole machine may have stood still, and a heartbeat that
# died meanwhile comes back if its process lives.
SECOND_LOOK_AFTER = 2.5
# For so long the end of a reply whose row has ended may still be on its way through the log.
LOG_MAY_BE_LATE = 5.0


class Reaper:
    def __init__(self, remote: RemoteLogs, *, runs_here: Callable[[UUID, UUID], bool]) -> None:
        """`runs_here(message_id, owner_token)`: whether this process produces it, and so needs no heartbeat."""
        self._remote = remote
        self._runs_here = runs_here

    async def run(self) -> None:
        """Until cancelled; the first round at once."""
        while True:
            try:
                await self.reap()
                await self._tell_missed_ends()
            except (RedisError, OSError, DatabaseFault) as error:
                logger.info("reaper_waits", error=type(error).__name__)
            await asyncio.sleep(EVERY)

    async def reap(self) -> int:
        """One round. Does nothing while Valkey is younger than a heartbeat lives: the living were not heard yet."""
        claimed = await reader.run(store.list_running_older_than, HEARTBEAT_TTL)
        if not claimed or await log.uptime() < HEARTBEAT_TTL:
            return 0
        if dead := await self._silent(claimed):
            await asyncio.sleep(SECOND_LOOK_AFTER)
            dead = await self._silent(dead)
        for reply in dead:
            try:
                await self._interrupt(reply)
            except (ValueError, DataError, IntegrityError):  # the others do not wait for one that cannot be ended
                logger.exception("reply_not_interrupted", message_id=str(reply.id))
        return len(dead)

    async def _silent(self, claimed: Sequence[Message]) -> list[Message]:
        heard = await log.alive([(reply.id, reply.owner_token) for reply in claimed])
        silent = [reply for reply, is_alive in zip(claimed, heard, strict=True) if not is_alive]
        return [reply for reply in silent if not self._runs_here(reply.id, reply.owner_token)]

    async def _interrupt(self, reply: Message) -> None:
        # First the fence: from here on a process that only slept cannot add a word that the row would lack.
        await log.fence(reply.id, reply.owner_token)
        entries = await log.read(reply.id)
        end = _end_of(reply, entries)
        end.html = await asyncio.to_thread(render, end.content)
        message = await writer.run(store.end_reply, reply.id, reply.owner_token, end)
        if message is None:
            return
        logger.warning("reply_interrupted", message_id=str(reply.id), characters=len(end.content))
        await log.close(reply.id, entries[-1] if entries else None, encode(ReplyEnded(message=message)))

    async def _tell_missed_ends(self) -> None:
        """A reply we follow may have ended while its log could not be written."""
        if message_ids := self._remote.message_ids:
            for message in await reader.run(store.list_ended, message_ids, for_seconds=LOG_MAY_BE_LATE):
                entries = await log.read(message.id)
                self._remote.end(message.id, entries, encode(ReplyEnded(message=message_to_dict(message))))


def _end_of(reply: Message, entries: Sequence[Entry]) -> ReplyEnd:
    """The row's text and what the log has beyond it, as far as the numbers go on without a gap."""
    number, content, reasoning = reply.last_sequence_number, [reply.content], [reply.reasoning]
    for entry in entries:
        if entry.kind == DELTA and entry.sequence_number == number + 1:
            number = entry.sequence_number
            frame = json.loads(entry.frame)
            content.append(frame.get("text", ""))
            reasoning.append(frame.get("reasoning", ""))
    end = ReplyEnd(
        status=reply.status,
        content="".join(content),
        reasoning="".join(reasoning),
        last_sequence_number=number,
        messages_left_out=reply.messages_left_out,
    )
    if reply.cancel_requested_at:
        end.set_stopped()
    else:
        end.set_interrupted()
    return end
