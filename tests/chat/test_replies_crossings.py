"""Replies when news cross: ends that the row has and the log not yet, and a reply continued under somebody's eyes."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from uuid import UUID

import pytest
from redis.exceptions import ConnectionError as ValkeyAwayError

from chat import replies
from chat.replies import get_hub, log, pump, reaper, store
from chat.replies.hub import ReplyHub
from chat.replies.watch import Watch
from config.valkey import get_valkey
from tests.chat.support import assert_whole
from tests.support.upstream import answer_text


@contextmanager
def in_another_process():
    """What is begun within runs in a hub of its own, which shares nothing but Valkey and the database."""
    loop = asyncio.get_running_loop()
    mine, other = get_hub(), ReplyHub()
    replies._hubs[loop] = other
    try:
        yield other
    finally:
        replies._hubs[loop] = mine


@pytest.fixture
async def other(live):
    hubs = []
    yield hubs
    for hub in hubs:
        await hub.stop()


class Gate:
    """Stands before a function of a module; closed, it lets nobody through. `asked` when somebody waits."""

    def __init__(self, monkeypatch, module, name) -> None:
        self._through, self.asked = asyncio.Event(), asyncio.Event()
        self._function = getattr(module, name)
        self.open()
        monkeypatch.setattr(module, name, self._call)

    def open(self) -> None:
        self._through.set()

    def close(self) -> None:
        self._through.clear()
        self.asked.clear()

    async def _call(self, *args, **kwargs):
        if not self._through.is_set():
            self.asked.set()
            await self._through.wait()
        return await self._function(*args, **kwargs)


@pytest.fixture
async def kept(monkeypatch):
    """Set when the row of a reply has ended."""
    event, loop, end_reply = asyncio.Event(), asyncio.get_running_loop(), store.end_reply

    def end(*args):
        ended = end_reply(*args)
        loop.call_soon_threadsafe(event.set)
        return ended

    monkeypatch.setattr(store, "end_reply", end)
    return event


async def subscribe(socket, message, after=0):
    fields = {"conversation_id": message["conversation_id"], "after": {message["id"]: after}}
    await socket.send("conversation.subscribe", **fields)
    await socket.receive_until("conversation.subscribed")


@pytest.mark.parametrize("runs_here", [True, False])
async def test_a_row_that_ended_before_its_log_costs_no_word(
    alice, model, connect, monkeypatch, kept, other, runs_here
):
    socket, watcher = await connect(alice), await connect(alice)
    appending = Gate(monkeypatch, log, "append")
    if runs_here:
        started = await socket.ask("[[tokens=20 rate=100]]", model="scripted")
    else:
        with in_another_process() as hub:
            other.append(hub)
            started = await socket.ask("[[tokens=20 rate=100]]", model="scripted")
    await socket.receive_until("reply.delta")
    appending.close()
    await kept.wait()
    await subscribe(watcher, started)
    appending.open()
    ended = await watcher.finish(started["id"])
    assert ended["content"] == answer_text(20)
    assert_whole(watcher, ended)


async def stopped_reply(socket):
    started = await socket.ask("[[tokens=40 rate=60]]", model="scripted")
    for _ in range(2):
        await socket.receive_until("reply.delta")
    await socket.send("reply.cancel", message_id=started["id"])
    return await socket.finish(started["id"])


async def test_the_end_before_a_continuation_is_no_end_in_another_process(alice, model, connect, monkeypatch, other):
    socket, watcher = await connect(alice), await connect(alice)
    stopped = await stopped_reply(socket)
    asking = Gate(monkeypatch, log, "exists")
    asking.close()
    with in_another_process() as hub:
        other.append(hub)
        await socket.send("reply.continue", message_id=stopped["id"])
        await socket.receive_until("reply.started")
    await subscribe(watcher, stopped)
    await watcher.receive_until(
        "reply.delta", where=lambda delta: delta["sequence_number"] == stopped["last_sequence_number"]
    )
    asking.open()
    ended = await watcher.finish(stopped["id"])
    assert ended["content"] == answer_text(40)
    assert_whole(watcher, ended)


async def test_a_reply_is_continued_only_when_its_log_has_ended(alice, model, connect, monkeypatch, kept):
    socket, other_tab, late = await connect(alice), await connect(alice), await connect(alice)
    started = await socket.ask("[[tokens=40 rate=60]]", model="scripted")
    await socket.receive_until("reply.delta")
    appending = Gate(monkeypatch, log, "append")
    appending.close()
    await appending.asked.wait()
    await other_tab.send("reply.cancel", message_id=started["id"])
    await kept.wait()
    await other_tab.send("reply.continue", message_id=started["id"], request_id="c")
    appending.open()
    await other_tab.receive_until("reply.started", where=lambda frame: frame.get("request_id") == "c")
    assert (await other_tab.finish(started["id"]))["content"] == answer_text(40)
    await subscribe(late, started)
    ended = await late.finish(started["id"])
    assert ended["status"] == "complete"
    assert_whole(late, ended)


async def test_a_missed_end_is_told_behind_all_words(alice, model, connect, monkeypatch, other):
    """Its log never says the end, and this process has not even read the words when it finds out."""
    monkeypatch.setattr(reaper, "LOG_MAY_BE_LATE", 0)
    socket = await connect(alice)
    with in_another_process() as hub:
        other.append(hub)
        started = await socket.ask("[[tokens=10 rate=100]]", model="scripted")
        idle = ReplyHub()
        idle.start()
        for service in idle._services:
            service.cancel()
        shown = []
        await idle.add_watch(Watch(UUID(started["id"]), shown.append))
        await socket.finish(started["id"])
    await idle._reaper._tell_missed_ends()
    numbers = [entry.sequence_number for entry in shown if entry.kind == log.DELTA]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 1
    assert [entry.kind for entry in shown].count(log.END) == 1
    assert shown[-1].kind == log.END


async def test_an_ended_reply_is_shown_while_valkey_is_away(alice, model, connect, monkeypatch):
    async def read(message_id):
        raise ValkeyAwayError

    socket = await connect(alice)
    started = await socket.ask("[[tokens=3]]", model="scripted")
    ended = await socket.finish(started["id"])
    monkeypatch.setattr(log, "read", read)
    await subscribe(socket, started)
    assert await socket.finish(started["id"]) == ended


async def lose_heartbeats():
    await get_valkey().delete(*[key async for key in get_valkey().scan_iter("reply:*:alive")])


async def test_a_reply_outlives_a_standstill_longer_than_its_heartbeat(alice, model, connect, monkeypatch):
    """Valkey, or the whole machine, slept: the heartbeats are gone, and the reaper may be the first to wake up."""
    monkeypatch.setattr(reaper, "HEARTBEAT_TTL", 0)
    monkeypatch.setattr(pump, "HEARTBEAT_EVERY", 0.05)
    socket = await connect(alice)
    await socket.ask("[[tokens=500 rate=20]]", model="scripted")
    await socket.receive_until("reply.delta")
    with in_another_process() as hub:
        await lose_heartbeats()
        assert await hub._reaper.reap() == 0


async def test_a_process_does_not_reap_what_it_produces(alice, model, connect, monkeypatch):
    monkeypatch.setattr(reaper, "HEARTBEAT_TTL", 0)
    monkeypatch.setattr(reaper, "SECOND_LOOK_AFTER", 0)
    socket = await connect(alice)
    await socket.ask("[[tokens=500 rate=20]]", model="scripted")
    await socket.receive_until("reply.delta")
    beating = Gate(monkeypatch, log, "beat")
    beating.close()
    await lose_heartbeats()
    assert await get_hub()._reaper.reap() == 0
    beating.open()


async def test_a_reply_that_cannot_be_ended_does_not_keep_others_from_it(alice, model, connect, monkeypatch):
    monkeypatch.setattr(reaper, "HEARTBEAT_TTL", 0)
    monkeypatch.setattr(reaper, "SECOND_LOOK_AFTER", 0)
    socket = await connect(alice)
    first = await socket.ask("[[tokens=500 rate=20]]", model="scripted")
    second = await socket.ask("[[tokens=500 rate=20]]", model="scripted")
    end_of = reaper._end_of

    def stumble(reply, entries):
        if str(reply.id) == first["id"]:
            raise ValueError("not what was expected")
        return end_of(reply, entries)

    monkeypatch.setattr(reaper, "_end_of", stumble)
    beating = Gate(monkeypatch, log, "beat")
    beating.close()
    await beating.asked.wait()
    with in_another_process() as hub:
        await lose_heartbeats()
        assert await hub._reaper.reap() == 2
    beating.open()
    assert (await socket.finish(second["id"]))["status"] == "interrupted"
