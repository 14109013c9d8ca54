"""Replies over the real socket, a real Valkey, a real database and a scripted provider over real HTTP."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import sync_to_async

from chat import replies
from chat.models import Conversation, Message
from chat.replies import get_hub
from config.valkey import get_valkey
from models_hub.models import Connection
from tests.chat.support import Socket, assert_whole, make_model
from tests.support.upstream import answer_text


async def rows(**filters) -> list[Message]:
    return await sync_to_async(lambda: list(Message.objects.filter(**filters)))()


async def test_a_reply_streams_and_is_kept(alice, model, connect):
    socket = await connect(alice)
    started = await socket.ask("[[tokens=20 rate=100]] Hello there", model="scripted", request_id="r1")
    assert [frame["type"] for frame in socket.frames] == ["conversation.created", "message.created", "reply.started"]
    assert all(frame["request_id"] == "r1" for frame in socket.frames)
    assert started["status"] == "pending"

    ended = await socket.finish(started["id"])
    assert_whole(socket, ended)
    assert ended["content"] == answer_text(20)
    assert ended["status"] == "complete" and ended["finish_reason"] == "stop"
    assert ended["usage"]["completion_tokens"] == 20
    assert (ended["model"], ended["version"]) == ("scripted", 1)
    assert 0 < ended["timings"]["first_token_ms"] <= ended["timings"]["total_ms"]
    assert len(socket.deltas(started["id"])) > 2, "it came in pieces"

    [row] = await rows(role="assistant")
    assert (row.content, row.status, row.html) == (ended["content"], "complete", ended["html"])


async def test_blocks_cover_the_content(alice, model, connect):
    socket = await connect(alice)
    started = await socket.ask("[[tokens=16 text=markdown rate=20]]", model="scripted")
    ended = await socket.finish(started["id"])
    blocks = [frame for frame in socket.frames if frame["type"] == "reply.block"]
    assert [block["index"] for block in blocks] == list(range(len(blocks)))
    assert blocks[-1]["length"] == len(ended["content"])
    assert "".join(block["html"] for block in blocks) == ended["html"]
    assert any(delta.get("tail", {}).get("kind") == "code" for delta in socket.deltas(started["id"]))


async def test_thinking_is_kept_apart(alice, model, connect):
    socket = await connect(alice)
    started = await socket.ask("[[tokens=5 reasoning=4]]", model="scripted")
    ended = await socket.finish(started["id"])
    assert ended["reasoning"] == "r0 r1 r2 r3 "
    assert ended["content"] == answer_text(5)
    assert_whole(socket, ended)


async def test_closing_every_tab_changes_nothing(alice, model, connect, upstream):
    socket = await connect(alice)
    started = await socket.ask("[[tokens=30 rate=60]]", model="scripted")
    await socket.receive_until("reply.delta")
    await socket.close()

    again = await connect(alice)
    await again.send("conversation.subscribe", conversation_id=started["conversation_id"])
    subscribed = await again.receive_until("conversation.subscribed")
    assert [message["id"] for message in subscribed["running"]] == [started["id"]]
    ended = await again.finish(started["id"])
    assert ended["content"] == answer_text(30)
    assert_whole(again, ended)


async def test_a_watcher_that_comes_back_gets_just_what_it_missed(alice, model, connect):
    socket = await connect(alice)
    started = await socket.ask("[[tokens=40 rate=80]]", model="scripted")
    for _ in range(3):
        last = await socket.receive_until("reply.delta")
    await socket.close()
    again = await connect(alice)
    after = {started["id"]: last["sequence_number"]}
    await again.send("conversation.subscribe", conversation_id=started["conversation_id"], after=after)
    ended = await again.finish(started["id"])
    assert_whole(again, ended, first=last["sequence_number"] + 1)
    assert socket.text(started["id"]) + again.text(started["id"]) == ended["content"]


async def test_an_ended_reply_is_replayed_from_its_log_and_after_that_from_its_row(alice, model, connect):
    socket = await connect(alice)
    started = await socket.ask("[[tokens=10 rate=100]]", model="scripted")
    ended = await socket.finish(started["id"])
    subscribe = {"conversation_id": started["conversation_id"], "after": {started["id"]: 2}}
    again = await connect(alice)
    await again.send("conversation.subscribe", **subscribe)
    assert await again.finish(started["id"]) == ended
    assert_whole(again, ended, first=3)

    await get_valkey().flushdb()  # the log has expired
    late = await connect(alice)
    await late.send("conversation.subscribe", **subscribe)
    assert await late.finish(started["id"]) == ended
    assert late.deltas(started["id"]) == []


async def test_two_tabs_see_the_same(alice, model, connect):
    first, second = await connect(alice), await connect(alice)
    started = await first.ask("[[tokens=3]]", model="scripted")
    await first.finish(started["id"])
    created = await second.receive_until("conversation.created")
    conversation_id = created["conversation"]["id"]
    await second.send("conversation.subscribe", conversation_id=conversation_id)
    await second.receive_until("conversation.subscribed")

    started = await first.ask("[[tokens=20 rate=80]]", conversation_id=conversation_id)
    ended = await first.finish(started["id"])
    seen = await second.receive_until("message.created")
    assert seen["message"]["content"] == "[[tokens=20 rate=80]]"
    assert await second.finish(started["id"]) == ended
    assert_whole(first, ended)
    assert_whole(second, ended)


async def test_stop_ends_the_upstream_request(alice, model, connect, upstream):
    socket = await connect(alice)
    started = await socket.ask("[[tokens=500 rate=50]]", model="scripted")
    await socket.receive_until("reply.delta")
    await socket.send("reply.cancel", message_id=started["id"], request_id="stop")
    frame = await socket.receive_until("reply.stopped")
    assert frame["request_id"] == "stop"
    assert frame["message"]["finish_reason"] == "cancelled"
    assert frame["message"]["content"].startswith("w0 ")
    assert_whole(socket, frame["message"])
    await upstream.wait(lambda server: server.chats[-1].hung_up)

    await socket.send("reply.cancel", message_id=started["id"], request_id="again")
    assert (await socket.receive_until("reply.stopped"))["request_id"] == "again"


async def test_stop_works_before_the_first_token_and_from_another_tab(alice, model, connect, upstream):
    socket, other = await connect(alice), await connect(alice)
    started = await socket.ask("[[first=30]]", model="scripted")
    await upstream.wait(lambda server: server.chats)
    await other.send("reply.cancel", message_id=started["id"], request_id="x")
    assert (await other.receive_until("reply.stopped"))["request_id"] == "x"
    ended = await socket.finish(started["id"])
    assert (ended["status"], ended["content"]) == ("stopped", "")
    await upstream.wait(lambda server: server.chats[-1].hung_up)


async def test_stop_in_the_same_breath_as_the_message(alice, model, connect):
    socket = await connect(alice)
    started = await socket.ask("[[tokens=500 rate=50]]", model="scripted")
    await socket.send("reply.cancel", message_id=started["id"])
    assert (await socket.finish(started["id"]))["status"] == "stopped"


@pytest.mark.parametrize(
    ("script", "code", "kept"),
    [
        ("fail=401", "provider_auth", ""),
        ("fail=404", "provider_not_found", ""),
        ("fail=429", "provider_rate_limited", ""),
        ("fail=500", "provider_unavailable", ""),
        ("fail=context", "context_length_exceeded", ""),
        ("fail=html", "provider_bad_response", ""),
        ("fail=garbage", "provider_bad_response", ""),
        ("tokens=10 end=drop at=5 rate=200", None, answer_text(5)),
        ("tokens=10 end=garbage at=5", "provider_bad_response", answer_text(5)),
        ("tokens=10 finish=none", "provider_bad_response", answer_text(10)),
    ],
)
async def test_a_provider_that_fails_leaves_a_code_and_the_words(alice, model, connect, script, code, kept):
    socket = await connect(alice)
    started = await socket.ask(f"[[{script}]]", model="scripted")
    ended = await socket.finish(started["id"])
    assert ended["status"] == "failed" and ended["finish_reason"] == "error"
    assert ended["content"] == kept
    assert ended["error"]["code"] in ([code] if code else ["provider_unavailable", "provider_bad_response"])
    assert ended["error"]["message"].endswith((".", "?"))
    await socket.send("ping")
    await socket.receive_until("pong")


async def test_a_silent_provider_times_out(alice, model, connect, settings):
    from dataclasses import replace

    settings.DIALOOP = replace(settings.DIALOOP, request_timeout=0.3, max_retries=0)
    socket = await connect(alice)
    for script in ("[[fail=hang]]", "[[tokens=10 end=hang at=3]]"):
        started = await socket.ask(script, model="scripted")
        ended = await socket.finish(started["id"])
        assert ended["error"]["code"] == "provider_timeout"
        assert ended["error"]["retryable"] is True
    assert ended["content"] == answer_text(3)


async def test_the_fallback_answers_and_says_so(alice, live, upstream, connect):
    def make():
        spare = make_model(upstream, "spare")
        make_model(upstream, "faulty", "fail=500", fallback=spare)

    await sync_to_async(make)()
    socket = await connect(alice)
    started = await socket.ask("[[tokens=4]]", model="faulty")
    ended = await socket.finish(started["id"])
    assert (ended["status"], ended["model"], ended["requested_model"]) == ("complete", "spare", "faulty")
    assert ended["content"] == answer_text(4)


async def test_a_failing_model_rests_and_its_neighbour_does_not(alice, live, upstream, connect):
    def make():
        model = make_model(upstream, "faulty", "fail=500")
        neighbour = make_model(upstream, "healthy")
        neighbour.connection = model.connection
        neighbour.save(update_fields=["connection"])

    await sync_to_async(make)()
    socket = await connect(alice)
    for _ in range(5):
        started = await socket.ask("hello", model="faulty")
        assert (await socket.finish(started["id"]))["error"]["code"] == "provider_unavailable"
    await socket.send("message.create", content="hello", model="faulty")
    assert (await socket.receive_until("error"))["code"] == "model_unavailable"
    started = await socket.ask("[[tokens=2]]", model="healthy")
    assert (await socket.finish(started["id"]))["status"] == "complete"


async def test_requests_that_a_provider_refuses_do_not_shut_the_model_for_others(alice, model, connect):
    socket = await connect(alice)
    for _ in range(6):
        started = await socket.ask("[[fail=bad]]", model="scripted")
        assert (await socket.finish(started["id"]))["error"]["code"] == "provider_bad_response"
    started = await socket.ask("[[tokens=2]]", model="scripted")
    assert (await socket.finish(started["id"]))["status"] == "complete"


async def test_edit_and_regenerate_make_siblings(alice, model, connect):
    socket = await connect(alice)
    first = await socket.ask("[[tokens=2]] one", model="scripted")
    await socket.finish(first["id"])
    question = first["parent_id"]
    fields = {"conversation_id": first["conversation_id"]}
    edited = await socket.ask("[[tokens=3]] two", edit_of=question, **fields)
    await socket.finish(edited["id"])
    await socket.send("reply.create", parent_id=question, **fields)
    again = (await socket.receive_until("reply.started"))["message"]
    assert again["parent_id"] == question
    await socket.finish(again["id"])
    parents = {str(row.id): row.parent_id for row in await rows(role="user")}
    assert parents[question] is None and parents[edited["parent_id"]] is None
    conversation = await sync_to_async(Conversation.objects.get)()
    assert str(conversation.current_leaf_id) == again["id"]

    await socket.send("conversation.select", message_id=first["id"], request_id="s", **fields)
    updated = await socket.receive_until("conversation.updated", where=lambda frame: frame.get("request_id") == "s")
    assert updated["conversation"]["current_leaf_id"] == first["id"]


async def test_a_message_under_a_running_reply_is_busy(alice, model, connect):
    socket = await connect(alice)
    started = await socket.ask("[[tokens=100 rate=50]]", model="scripted")
    fields = {"conversation_id": started["conversation_id"]}
    await socket.send("message.create", content="next", request_id="b", **fields)
    error = await socket.receive_until("error")
    assert (error["code"], error["request_id"]) == ("busy", "b")
    await socket.send("reply.create", parent_id=started["parent_id"], **fields)
    sibling = (await socket.receive_until("reply.started"))["message"]
    for message in (started, sibling):
        await socket.send("reply.cancel", message_id=message["id"])
        await socket.receive_until("reply.stopped")


async def test_continue_goes_on_with_numbers_and_words(alice, model, connect):
    socket = await connect(alice)
    started = await socket.ask("[[tokens=30 rate=60]]", model="scripted")
    for _ in range(4):
        await socket.receive_until("reply.delta")
    await socket.send("reply.cancel", message_id=started["id"])
    stopped = await socket.finish(started["id"])
    watcher = await connect(alice)
    await watcher.send("conversation.subscribe", conversation_id=started["conversation_id"])
    await watcher.receive_until("conversation.subscribed")

    await socket.send("reply.continue", message_id=started["id"], request_id="c")
    resumed = (await socket.receive_until("reply.started"))["message"]
    assert (resumed["id"], resumed["status"], resumed["content"]) == (started["id"], "pending", stopped["content"])
    ended = await socket.finish(started["id"])
    assert ended["content"] == answer_text(30)
    assert_whole(socket, ended)
    assert (await watcher.finish(started["id"]))["content"] == ended["content"]
    assert_whole(watcher, ended, first=stopped["last_sequence_number"] + 1)

    late = await connect(alice)
    after = {started["id"]: 0}
    await late.send("conversation.subscribe", conversation_id=started["conversation_id"], after=after)
    assert await late.finish(started["id"]) == ended
    assert_whole(late, ended)
    blocks = {frame["index"]: frame for frame in late.frames if frame["type"] == "reply.block"}
    assert "".join(blocks[index]["html"] for index in sorted(blocks)) == ended["html"]

    await socket.send("reply.continue", message_id=started["id"], request_id="no")
    assert (await socket.receive_until("error"))["code"] == "invalid"


async def test_continue_after_the_log_has_expired(alice, model, connect):
    socket = await connect(alice)
    started = await socket.ask("[[tokens=30 rate=60]]", model="scripted")
    for _ in range(4):
        await socket.receive_until("reply.delta")
    await socket.send("reply.cancel", message_id=started["id"])
    await socket.finish(started["id"])
    await get_valkey().flushdb()
    await socket.send("reply.continue", message_id=started["id"])
    ended = await socket.finish(started["id"])
    assert_whole(socket, ended)
    late = await connect(alice)
    after = {started["id"]: 0}
    await late.send("conversation.subscribe", conversation_id=started["conversation_id"], after=after)
    await late.finish(started["id"])
    assert_whole(late, ended)


async def test_the_same_request_sent_again_creates_nothing(alice, model, connect):
    socket = await connect(alice)
    first = await socket.ask("[[tokens=3]]", model="scripted", request_id="same")
    ended = await socket.finish(first["id"])
    again = await connect(alice)
    repeated = await again.ask("[[tokens=3]]", model="scripted", request_id="same")
    assert repeated["id"] == first["id"]
    assert await again.finish(first["id"]) == ended
    assert len(await rows()) == 2


async def test_a_stopping_process_interrupts_its_replies_and_keeps_the_words(alice, model, connect):
    socket = await connect(alice)
    started = await socket.ask("[[tokens=500 rate=50]]", model="scripted")
    await socket.receive_until("reply.delta")
    await replies.shutdown()
    ended = await socket.finish(started["id"])
    assert (ended["status"], ended["error"]["code"]) == ("interrupted", "interrupted")
    assert ended["content"] and ended["error"]["retryable"]
    assert_whole(socket, ended)


async def test_the_reaper_keeps_every_word_of_a_dead_process(alice, model, connect, monkeypatch):
    """The owner dies without a word: its pump and its heartbeat stop, its last second is only in the log."""
    from chat.replies import reaper

    socket = await connect(alice)
    started = await socket.ask("[[tokens=500 rate=50]]", model="scripted")
    for _ in range(5):
        await socket.receive_until("reply.delta")
    dead = replies._hubs.pop(asyncio.get_running_loop())
    for service in dead._services:
        service.cancel()
    await get_valkey().delete(*[key async for key in get_valkey().scan_iter("reply:*:alive")])
    monkeypatch.setattr(reaper, "HEARTBEAT_TTL", 0)

    watcher = await connect(alice)
    assert await get_hub()._reaper.reap() == 1
    await watcher.send("conversation.subscribe", conversation_id=started["conversation_id"], after={started["id"]: 0})
    ended = await watcher.finish(started["id"])
    assert ended["status"] == "interrupted"
    assert_whole(watcher, ended)
    assert ended["content"].startswith(socket.text(started["id"]))
    await dead.stop()


async def test_a_fenced_process_cannot_add_a_word(alice, model, connect, upstream):
    from chat.replies import log

    socket = await connect(alice)
    await socket.ask("[[tokens=500 rate=100]]", model="scripted")
    await socket.receive_until("reply.delta")
    [row] = await rows(role="assistant")
    await log.fence(row.id, row.owner_token)
    before = await log.read(row.id)
    await upstream.wait(lambda server: server.chats[-1].hung_up)
    after = await log.read(row.id)
    assert len(after) - len(before) <= 1, "at most what was on its way when the fence went up"
    assert after[-1].kind == log.DELTA
    assert row.id not in get_hub()._pump.replies


async def test_a_reply_of_another_process_is_followed_through_its_log(alice, model, connect):
    """Two hubs in one loop stand for two processes: they share nothing but Valkey and the database."""
    from chat.replies.hub import ReplyHub

    socket = await connect(alice)
    mine = get_hub()
    other = ReplyHub()
    replies._hubs[asyncio.get_running_loop()] = other
    started = await socket.ask("[[tokens=60 rate=60]]", model="scripted")
    replies._hubs[asyncio.get_running_loop()] = mine
    watcher = await connect(alice)
    await watcher.send("conversation.subscribe", conversation_id=started["conversation_id"])
    await watcher.receive_until("reply.delta")
    await watcher.send("reply.cancel", message_id=started["id"])
    ended = await watcher.finish(started["id"])
    assert ended["status"] == "stopped"
    assert_whole(watcher, ended)
    assert await socket.finish(started["id"]) == ended
    await other.stop()


async def test_context_is_the_last_messages_and_says_what_was_left_out(alice, model, connect, settings, upstream):
    from dataclasses import replace

    settings.DIALOOP = replace(settings.DIALOOP, context_messages=2)
    socket = await connect(alice)
    fields = {"model": "scripted"}
    for number in range(3):
        started = await socket.ask(f"[[tokens=2]] question {number}", **fields)
        fields = {"conversation_id": started["conversation_id"]}
        ended = await socket.finish(started["id"])
    asked = [message["content"] for message in upstream.chats[-1].body["messages"]]
    assert asked == ["[[tokens=2]] question 1", "w0 w1 ", "[[tokens=2]] question 2"]
    assert ended["messages_left_out"] == 2


async def test_the_window_cuts_from_the_oldest(alice, live, upstream, connect):
    await sync_to_async(make_model)(upstream, "small", context_window=120)
    socket = await connect(alice)
    fields = {"model": "small", "options": {"max_new_tokens": 20, "system_prompt": "Be brief."}}
    for number in range(4):
        started = await socket.ask(f"[[tokens=2]] question {number} " + "word " * 20, **fields)
        fields["conversation_id"] = started["conversation_id"]
        ended = await socket.finish(started["id"])
    asked = upstream.chats[-1].body["messages"]
    assert asked[0] == {"role": "system", "content": "Be brief."}
    assert asked[-1]["content"].startswith("[[tokens=2]] question 3")
    assert asked[1]["role"] == "user"
    assert ended["messages_left_out"] == 6 - (len(asked) - 2)
    assert ended["messages_left_out"] > 0

    started = await socket.ask("[[tokens=2]] " + "long " * 500, **fields)
    assert (await socket.finish(started["id"]))["error"]["code"] == "context_length_exceeded"

    started = await socket.ask("[[tokens=2]] " + "long " * 120, **fields)  # perhaps: the provider knows
    assert (await socket.finish(started["id"]))["status"] == "complete"


async def test_a_classifier_reads_the_question_alone(alice, live, upstream, connect):
    """However long what it does not read is, and whatever was said before."""
    await sync_to_async(make_model)(upstream)
    model = await sync_to_async(make_model)(upstream, "labels", context_window=60, task="classification")
    engine = {"kind": "engine", "base_url": upstream.url}
    await sync_to_async(Connection.objects.filter(pk=model.connection_id).update)(**engine)
    socket = await connect(alice)
    first = await socket.ask("[[tokens=2]] one", model="scripted", options={"system_prompt": "Be brief. " * 100})
    await socket.finish(first["id"])
    second = await socket.ask("A good film", model="labels", conversation_id=first["conversation_id"])
    assert second["messages_left_out"] == 0
    ended = await socket.finish(second["id"])
    assert (ended["status"], ended["messages_left_out"]) == ("complete", 0)
    assert [row["label"] for row in ended["labels"]] == ["positive", "negative"]


async def test_options_reach_the_provider(alice, model, connect, upstream):
    socket = await connect(alice)
    options = {"temperature": 0.2, "top_p": 0.5, "max_new_tokens": 7, "seed": 3, "stop": ["END"], "system_prompt": "Hi"}
    started = await socket.ask("[[tokens=20]]", model="scripted", options=options)
    ended = await socket.finish(started["id"])
    body = upstream.chats[-1].body
    assert (body["temperature"], body["top_p"], body["seed"], body["stop"]) == (0.2, 0.5, 3, ["END"])
    assert ended["finish_reason"] == "length"


async def test_many_at_once_lose_nothing(alice, model, connect, settings):
    from dataclasses import replace

    settings.DIALOOP = replace(settings.DIALOOP, messages_per_minute=0)
    sockets: list[Socket] = [await connect(alice) for _ in range(10)]

    async def one(socket: Socket, number: int) -> None:
        started = await socket.ask(f"[[tokens=40 rate=40]] {number}", model="scripted")
        ended = await socket.finish(started["id"])
        assert_whole(socket, ended)
        assert ended["content"] == answer_text(40)

    await asyncio.gather(*(one(socket, number) for socket in sockets for number in range(1)))
