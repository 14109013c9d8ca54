"""What a reply has used is known of stopped and failed ones too, where the provider or our own engine counts."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async

from models_hub.models import Connection
from tests.chat.support import make_model
from tests.support.upstream import answer_text


@pytest.fixture
async def ours(live, upstream):
    """A model of our engine: it counts what it is asked to."""

    def make() -> None:
        model = make_model(upstream, "ours")
        Connection.objects.filter(pk=model.connection_id).update(kind="engine", base_url=upstream.url)

    await sync_to_async(make)()


async def stop(socket, text: str, model: str) -> dict:
    started = await socket.ask(text, model=model)
    for _ in range(3):
        await socket.receive_until("reply.delta")
    await socket.send("reply.cancel", message_id=started["id"])
    return await socket.finish(started["id"])


async def test_our_engine_counts_what_a_stopped_reply_has_used(alice, ours, connect):
    socket = await connect(alice)
    ended = await stop(socket, "[[tokens=200 rate=50]]", "ours")
    assert ended["status"] == "stopped"
    assert ended["usage"]["prompt_tokens"] > 0
    assert 0 < ended["usage"]["completion_tokens"] < 200


async def test_our_engine_counts_what_a_failed_reply_has_used(alice, ours, connect):
    socket = await connect(alice)
    started = await socket.ask("[[tokens=20 end=error at=10]]", model="ours")
    ended = await socket.finish(started["id"])
    assert (ended["status"], ended["content"]) == ("failed", answer_text(10))
    assert ended["usage"]["prompt_tokens"] > 0
    assert ended["usage"]["completion_tokens"] > 0


async def test_a_provider_that_counts_as_it_goes_is_believed(alice, model, connect):
    socket = await connect(alice)
    ended = await stop(socket, "[[tokens=200 rate=50 usage=running]]", "scripted")
    words = len(ended["content"].split())
    assert words - 3 <= ended["usage"]["completion_tokens"] <= words + 3


async def test_a_provider_that_counts_only_at_the_end_leaves_it_unknown(alice, model, connect):
    socket = await connect(alice)
    ended = await stop(socket, "[[tokens=200 rate=50]]", "scripted")
    assert (ended["status"], ended["usage"]) == ("stopped", None)


async def test_a_continued_reply_has_used_what_both_runs_did(alice, model, connect, upstream):
    socket = await connect(alice)
    started = await socket.ask("[[tokens=30]]", model="scripted", options={"max_new_tokens": 10})
    first = await socket.finish(started["id"])
    assert (first["finish_reason"], first["usage"]["completion_tokens"]) == ("length", 10)

    await socket.send("reply.continue", message_id=started["id"])
    await socket.receive_until("reply.started")
    second = await socket.finish(started["id"])
    assert second["usage"]["completion_tokens"] == 20
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"]

    upstream.script = "fail=500"
    await socket.send("reply.continue", message_id=started["id"])
    await socket.receive_until("reply.started")
    third = await socket.finish(started["id"])
    assert (third["status"], third["usage"]) == ("failed", second["usage"])
