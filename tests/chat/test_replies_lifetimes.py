"""Replies whose socket or process ends at the wrong moment."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async

from chat import replies
from chat.models import Message
from chat.replies import get_hub, start
from tests.chat.support import Socket, cookie_of
from tests.support.upstream import answer_text


@pytest.fixture
def writing(monkeypatch):
    """A message being written, for as long as the test likes: (has begun, may end)."""
    begun, may_end = threading.Event(), threading.Event()
    create_message = start.create_message

    def create_slowly(*args):
        begun.set()
        may_end.wait(10)
        return create_message(*args)

    monkeypatch.setattr(start, "create_message", create_slowly)
    yield begun, may_end
    may_end.set()


async def open_socket(user) -> Socket:
    """One that the test ends itself."""
    return await Socket.open(cookie=await sync_to_async(cookie_of)(user))


async def kill(socket):
    """As Daphne does with a handler that does not end, and without a good-bye."""
    socket._communicator.future.cancel()
    with suppress(asyncio.CancelledError):
        await socket._communicator.future


async def get_reply() -> Message:
    return await sync_to_async(Message.objects.get)(role="assistant")


async def test_a_message_is_answered_although_its_socket_died_while_it_was_written(alice, model, writing):
    begun, may_end = writing
    socket = await open_socket(alice)
    await socket.send("message.create", content="[[tokens=5]]", model="scripted")
    await asyncio.to_thread(begun.wait, 10)
    await kill(socket)
    may_end.set()
    while get_hub()._tasks:
        await asyncio.wait(get_hub()._tasks)
    reply = await get_reply()
    assert (reply.status, reply.content) == ("complete", answer_text(5))


async def test_a_message_written_while_the_process_stops_is_interrupted_and_not_forgotten(alice, model, writing):
    begun, may_end = writing
    socket = await open_socket(alice)
    await socket.send("message.create", content="[[tokens=500 rate=50]]", model="scripted")
    await asyncio.to_thread(begun.wait, 10)
    stopping = asyncio.create_task(replies.shutdown())
    await asyncio.sleep(0)
    may_end.set()
    await stopping
    await kill(socket)
    assert (await get_reply()).status == "interrupted"


async def test_a_socket_that_dies_without_a_goodbye_is_no_longer_told(alice, model):
    socket = await open_socket(alice)
    started = await socket.ask("[[tokens=500 rate=50]]", model="scripted")
    await socket.receive_until("reply.delta")
    await kill(socket)
    assert not get_hub()._pump.replies[UUID(started["id"])]._watches
