"""Replies whose socket or process ends at the wrong moment."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async

from chat import replies, subscriptions
from chat.models import Message
from chat.replies import get_hub, start
from tests.chat.support import Socket, cookie_of
from tests.support.upstream import answer_text


async def test_a_replay_longer_than_the_backlog_is_delivered_and_lets_others_in(monkeypatch):
    monkeypatch.setattr(subscriptions, "LARGEST_BACKLOG", 10)
    sent: list[str] = []
    is_over, others_ran = asyncio.Event(), asyncio.Event()

    async def send(frame: str) -> None:
        sent.append(frame)
        if len(sent) == 1000:
            is_over.set()

    async def overflow() -> None:
        is_over.set()

    outbox = subscriptions.Outbox(send, overflow)
    for number in range(1000):
        outbox.put(str(number))
    asyncio.get_running_loop().call_later(0, lambda: others_ran.set() if len(sent) < 1000 else None)
    await is_over.wait()
    assert sent == [str(number) for number in range(1000)]
    assert others_ran.is_set()
    outbox.close()


async def test_a_reader_that_takes_nothing_is_dropped(monkeypatch):
    monkeypatch.setattr(subscriptions, "LONGEST_SEND", 0.01)
    dropped = asyncio.Event()

    async def overflow() -> None:
        dropped.set()

    outbox = subscriptions.Outbox(lambda frame: asyncio.Event().wait(), overflow)
    outbox.put("frame")
    async with asyncio.timeout(10):
        await dropped.wait()
    outbox.close()


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


async def test_a_swallowed_cancellation_does_not_hold_up_the_end(live):
    """As a client library did once: a service went on after its one cancellation, and the process never ended."""
    swallowed = asyncio.Event()

    async def service() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            swallowed.set()
        await asyncio.sleep(3600)

    hub = get_hub()
    hub.start()
    hub._services.append(asyncio.create_task(service()))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await replies.shutdown()
    assert swallowed.is_set()
