"""Replies when something of ours breaks: none stays unfinished for ever, and none takes the others along."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, InterfaceError

from chat import limits
from chat.replies import get_hub, hub, log, store
from chat.replies.pump import Pump
from chat.replies.running import RunningReply
from config import valkey
from models_hub.base import Usage
from tests.chat.support import assert_whole
from tests.support.upstream import answer_text


def fail_once(function, error):
    """The function, but its first call raises."""
    errors = [error]

    def call(*args, **kwargs):
        if errors:
            raise errors.pop()
        return function(*args, **kwargs)

    return call


async def stopped_reply(socket):
    started = await socket.ask("[[tokens=60 rate=60]]", model="scripted")
    for _ in range(2):
        await socket.receive_until("reply.delta")
    await socket.send("reply.cancel", message_id=started["id"])
    return await socket.finish(started["id"])


async def test_a_service_that_stumbles_begins_anew(alice, model, connect, monkeypatch):
    monkeypatch.setattr(hub, "RESTART_AFTER", 0)
    monkeypatch.setattr(Pump, "_tick", fail_once(Pump._tick, ValueError("nobody thought of it")))
    socket = await connect(alice)
    started = await socket.ask("[[tokens=10 rate=100]]", model="scripted")
    ended = await socket.finish(started["id"])
    assert ended["content"] == answer_text(10)
    assert_whole(socket, ended)


async def test_a_stop_ends_a_reply_whose_model_was_not_asked_yet(alice, model, connect, monkeypatch):
    socket = await connect(alice)
    stopped = await stopped_reply(socket)
    asked, answered = asyncio.Event(), asyncio.Event()

    async def exists_slowly(message_id):
        asked.set()
        await answered.wait()
        return True

    monkeypatch.setattr(log, "exists", exists_slowly)
    await socket.send("reply.continue", message_id=stopped["id"])
    await asked.wait()
    await get_hub().cancel(UUID(stopped["id"]))
    answered.set()
    again = await socket.finish(stopped["id"])
    assert (again["status"], again["content"]) == ("stopped", stopped["content"])


@pytest.mark.parametrize("usage", [Usage(-1, 3), Usage(1, 2**70)])
async def test_a_count_that_no_column_takes_does_not_keep_a_reply_open(alice, model, connect, monkeypatch, usage):
    monkeypatch.setattr("models_hub.clients.answer_reader.read_usage", lambda fields: usage)
    socket = await connect(alice)
    started = await socket.ask("[[tokens=3]]", model="scripted")
    ended = await socket.finish(started["id"])
    assert (ended["status"], ended["usage"]) == ("complete", None)


async def test_a_database_driver_that_gave_up_its_connection_is_asked_again(alice, model, connect, monkeypatch):
    monkeypatch.setattr(store, "end_reply", fail_once(store.end_reply, InterfaceError("the connection is closed")))
    monkeypatch.setattr(store, "materialise", fail_once(store.materialise, InterfaceError("the connection is closed")))
    socket = await connect(alice)
    started = await socket.ask("[[tokens=10 rate=100]]", model="scripted")
    assert (await socket.finish(started["id"]))["content"] == answer_text(10)


async def test_an_end_that_cannot_be_kept_is_left_to_the_reaper(alice, model, connect, monkeypatch):
    from chat.replies import reaper

    error = IntegrityError("a constraint nobody thought of")
    monkeypatch.setattr(store, "end_reply", fail_once(store.end_reply, error))
    monkeypatch.setattr(reaper, "HEARTBEAT_TTL", 0)
    monkeypatch.setattr(log, "HEARTBEAT_TTL", 1)
    socket = await connect(alice)
    started = await socket.ask("[[tokens=10 rate=100]]", model="scripted")
    ended = await socket.finish(started["id"])
    assert (ended["status"], ended["content"]) == ("interrupted", answer_text(10))
    assert_whole(socket, ended)


def test_what_no_database_takes_never_becomes_part_of_a_reply():
    reply = RunningReply(uuid4(), uuid4(), uuid4())
    reply.add_text("a\ud800b\0c é")
    reply.cut()
    assert reply.content == "a?bc é"
    assert reply.entries[0].frame.encode()


def test_progress_is_the_logged_text_however_often_it_is_asked_for():
    reply = RunningReply(uuid4(), uuid4(), uuid4(), content="so far ", last_sequence_number=1)
    reply.resume(log_is_gone=False)
    for number in range(2, 7):
        reply.add_reasoning(f"r{number} ")
        reply.add_text(f"w{number} ")
        reply.cut()
        reply.acknowledge(len(reply.entries))
        if number % 2:
            progress = reply.progress()
            assert (progress.content, progress.reasoning) == (reply.content, reply.reasoning)
            assert progress.last_sequence_number == reply.sequence_number
            assert reply.progress() is None
    reply.add_text("not logged")
    reply.cut()
    assert reply.progress().content == "so far w2 w3 w4 w5 w6 "


def test_a_valkey_that_hangs_holds_up_no_message(settings, monkeypatch):
    """It takes the connection and then says nothing. The default would be half a minute for each message."""
    monkeypatch.setattr(valkey, "SYNC_SOCKET_TIMEOUT", 0.05)
    monkeypatch.setattr(valkey, "SOCKET_TIMEOUT", None)
    for cached in (valkey.get_valkey_sync, limits._limiter):
        monkeypatch.setattr(cached.__module__ + "." + cached.__name__, cached.__wrapped__)
    monkeypatch.setattr(limits, "get_valkey_sync", valkey.get_valkey_sync)
    with socket.socket(socket.AF_UNIX) as hanging, tempfile.TemporaryDirectory() as folder:
        hanging.bind(f"{folder}/valkey")
        hanging.listen()
        settings.DIALOOP = replace(settings.DIALOOP, redis_url=f"unix://{folder}/valkey")
        limits.count_message(1)


async def test_a_log_that_was_lost_without_a_word_is_made_whole(alice, model, connect):
    """A Valkey that keeps nothing began anew between two appends: no call failed."""
    socket = await connect(alice)
    started = await socket.ask("[[tokens=20 rate=50]]", model="scripted")
    for _ in range(3):
        await socket.receive_until("reply.delta")
    await valkey.get_valkey().delete(log.log_key(UUID(started["id"])))
    ended = await socket.finish(started["id"])
    assert_whole(socket, ended)
    numbers = [entry.sequence_number for entry in await log.read(UUID(started["id"])) if entry.kind == log.DELTA]
    assert numbers == list(range(1, ended["last_sequence_number"] + 1))
