"""The chat socket's door: who comes in, who is sent out, and that bad input is answered and changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session

from accounts import services as accounts
from accounts.models import ApiKey
from chat.broadcast import announce
from chat.consumers import UNAUTHENTICATED
from chat.events import ConversationUpdated
from chat.models import Conversation, Message
from tests.chat.support import Socket, cookie_of, make_model
from tests.support.tables import changes, dump_tables

dump = sync_to_async(dump_tables)
MISSING = str(uuid4())


@pytest.fixture
async def talk_ids(alice, model):
    """A conversation of alice's with a question, its answer, and a reply that was stopped."""

    def make() -> dict[str, str]:
        conversation = Conversation.objects.create(owner=alice, title="Rivers", model="scripted")
        question = Message.objects.create(conversation=conversation, role="user", content="Which is longest?")
        fields = {"conversation": conversation, "parent": question, "depth": 1, "role": "assistant"}
        answer = Message.objects.create(content="The Nile.", finish_reason="stop", **fields)
        Conversation.objects.filter(id=conversation.id).update(current_leaf=answer)
        names = {"conversation_id": conversation.id, "question": question.id, "answer": answer.id}
        return {name: str(value) for name, value in names.items()}

    return await sync_to_async(make)()


@pytest.fixture
async def key(alice, live):
    return await sync_to_async(ApiKey.create_for)(alice)


async def refuse(socket: Socket, text: str | bytes) -> dict:
    """Send it; the error it gets, after which the socket still works and the database is as it was."""
    before = await dump()
    await socket.send_raw(**({"bytes_data": text} if isinstance(text, bytes) else {"text_data": text}))
    error = await socket.receive()
    assert error["type"] == "error"
    assert error["message"]
    await socket.send("ping", request_id="still here")
    assert await socket.receive() == {"type": "pong", "request_id": "still here"}
    assert changes(before, await dump()) == {}
    return error


async def refuse_frame(socket: Socket, kind: str, **fields) -> str:
    """The code of the refusal, which must repeat the request id."""
    error = await refuse(socket, json.dumps({"type": kind, "request_id": "bad", **fields}))
    assert error["request_id"] == "bad"
    return error["code"]


# --- bad input --------------------------------------------------------------------------------------------------------

UNREADABLE = [
    *("{", "[]", '"ping"', "null", "1", "{}", '{"type": "message.destroy"}', '{"type": 1}', "[" * 100_000),
    *(b"{}", b'{"type": "ping"}', b"\xff\xfe", b"\0"),
]


async def test_what_is_no_frame_is_answered(alice, connect):
    socket = await connect(alice)
    for text in UNREADABLE:
        error = await refuse(socket, text)
        assert error["code"] == "invalid", text
        assert "request_id" not in error


BAD_FIELDS = {
    "no content": {},
    "unknown field": {"content": "a", "surprise": 1},
    "unknown field that no socket can send": {"content": "a", "\ud800": 1},
    "content is a number": {"content": 1},
    "content is null": {"content": None},
    "content is empty": {"content": ""},
    "content is blank": {"content": " \n\t\u2003"},
    "content with NUL": {"content": "a\0b"},
    "content with half a character": {"content": "a\ud83d"},
    "model is a number": {"content": "a", "model": 1},
    "model with NUL": {"content": "a", "model": "scripted\0"},
    "conversation is no id": {"content": "a", "conversation_id": "1"},
    "parent without a conversation": {"content": "a", "parent_id": MISSING},
    "edit without a conversation": {"content": "a", "edit_of": MISSING},
    "options is a list": {"content": "a", "options": []},
    "unknown option": {"content": "a", "options": {"n": 2}},
}
BAD_OPTIONS = {
    "temperature": (-0.1, 2.1, "1", True, float("nan"), float("inf"), [], {}),
    "top_p": (0, 1.1, -1, True, float("nan"), "1"),
    "max_new_tokens": (0, -1, 1.5, True, "9", 10**30),
    "seed": (1.5, "1", True, 2**70, float("-inf")),
    "stop": (["a"] * 5, [""], [1], "", {}, 1, ["\0"], ["\ud800"]),
    "system_prompt": (1, [], "\0", "\ud800", "x" * 100_001),
}


async def test_message_with_a_bad_field_is_refused(alice, model, connect):
    socket = await connect(alice)
    for name, fields in BAD_FIELDS.items():
        assert await refuse_frame(socket, "message.create", **fields) == "invalid", name


@pytest.mark.parametrize("name", BAD_OPTIONS)
async def test_option_out_of_range_is_refused_never_clamped(alice, talk_ids, connect, name):
    socket = await connect(alice)
    reply = {"conversation_id": talk_ids["conversation_id"], "parent_id": talk_ids["question"]}
    for value in BAD_OPTIONS[name]:
        options = {name: value}
        assert await refuse_frame(socket, "message.create", content="a", options=options) == "invalid", value
        assert await refuse_frame(socket, "reply.create", **reply, options=options) == "invalid", value


async def test_text_over_the_limit_is_too_long_and_the_limit_itself_is_not(alice, model, connect, settings):
    settings.DIALOOP = replace(settings.DIALOOP, max_message_chars=30)
    socket = await connect(alice)
    assert await refuse_frame(socket, "message.create", content="漢" * 31, model="scripted") == "too_long"
    started = await socket.ask("[[tokens=2]]".ljust(30, "👩"), model="scripted")
    assert (await socket.finish(started["id"]))["status"] == "complete"


async def test_bad_request_id_is_refused_and_not_repeated(alice, model, connect):
    socket = await connect(alice)
    for request_id in ("x" * 65, 1, True, [], "\0", "\ud800"):
        frame = {"type": "message.create", "content": "a", "model": "scripted", "request_id": request_id}
        error = await refuse(socket, json.dumps(frame))
        assert error["code"] == "invalid", request_id
        assert "request_id" not in error


BAD_TARGETS = [
    ("message.create", {"content": "a", "conversation_id": MISSING}, "not_found"),
    ("message.create", {"content": "a", "conversation_id": "conversation_id", "parent_id": MISSING}, "not_found"),
    ("message.create", {"content": "a", "conversation_id": "conversation_id", "edit_of": MISSING}, "not_found"),
    ("message.create", {"content": "a", "conversation_id": "conversation_id", "edit_of": "answer"}, "invalid"),
    ("reply.create", {"conversation_id": MISSING, "parent_id": "question"}, "not_found"),
    ("reply.create", {"conversation_id": "conversation_id", "parent_id": MISSING}, "not_found"),
    ("reply.create", {"conversation_id": "conversation_id", "parent_id": "answer"}, "invalid"),
    ("reply.continue", {"message_id": MISSING}, "not_found"),
    ("reply.continue", {"message_id": "question"}, "invalid"),
    ("reply.continue", {"message_id": "answer"}, "invalid"),
    ("reply.cancel", {"message_id": MISSING}, "not_found"),
    ("reply.cancel", {"message_id": "question"}, "invalid"),
    ("conversation.select", {"conversation_id": MISSING, "message_id": "answer"}, "not_found"),
    ("conversation.select", {"conversation_id": "conversation_id", "message_id": MISSING}, "not_found"),
    ("conversation.subscribe", {"conversation_id": MISSING}, "not_found"),
]


async def test_id_that_does_not_fit_is_refused(alice, talk_ids, connect):
    socket = await connect(alice)
    for kind, fields, code in BAD_TARGETS:
        named = {name: talk_ids.get(value, value) for name, value in fields.items()}
        assert await refuse_frame(socket, kind, **named) == code, (kind, fields)


FOREIGN = [
    ("message.create", {"content": "a", "conversation_id": "conversation_id"}),
    ("message.create", {"content": "a", "conversation_id": "conversation_id", "parent_id": "answer"}),
    ("message.create", {"content": "a", "conversation_id": "conversation_id", "edit_of": "question"}),
    ("reply.create", {"conversation_id": "conversation_id", "parent_id": "question"}),
    ("reply.continue", {"message_id": "answer"}),
    ("reply.cancel", {"message_id": "answer"}),
    ("conversation.select", {"conversation_id": "conversation_id", "message_id": "answer"}),
    ("conversation.subscribe", {"conversation_id": "conversation_id"}),
]


async def test_ids_of_another_person_do_not_exist(charlie, talk_ids, connect):
    """The very same answer as for an id that was never given out."""
    socket = await connect(charlie)
    for kind, fields in FOREIGN:
        named = {name: talk_ids.get(value, value) for name, value in fields.items()}
        assert await refuse_frame(socket, kind, **named) == "not_found"
        said = socket.frames[-2]["message"]
        invented = {name: MISSING if value in talk_ids else value for name, value in fields.items()}
        assert await refuse_frame(socket, kind, **invented) == "not_found"
        assert socket.frames[-2]["message"] == said


async def test_conversation_in_the_bin_does_not_exist(alice, talk_ids, connect):
    socket = await connect(alice)
    rows = Conversation.objects.filter(id=talk_ids["conversation_id"])
    await rows.aupdate(deleted_at="2026-01-01T00:00:00Z")
    for kind, fields in FOREIGN:
        named = {name: talk_ids.get(value, value) for name, value in fields.items()}
        assert await refuse_frame(socket, kind, **named) == "not_found"


async def test_parent_from_another_conversation_of_the_same_person_is_not_found(alice, talk_ids, connect):
    other = await Conversation.objects.acreate(owner=alice, model="scripted")
    socket = await connect(alice)
    for name, value in (("parent_id", talk_ids["answer"]), ("edit_of", talk_ids["question"])):
        fields = {"content": "a", "conversation_id": str(other.id), name: value}
        assert await refuse_frame(socket, "message.create", **fields) == "not_found"
    fields = {"conversation_id": str(other.id), "message_id": talk_ids["answer"]}
    assert await refuse_frame(socket, "conversation.select", **fields) == "not_found"


async def test_unsubscribing_from_what_one_does_not_follow_is_no_error(alice, connect):
    own = await Conversation.objects.acreate(owner=alice, model="scripted")
    socket = await connect(alice)
    assert await refuse_frame(socket, "conversation.unsubscribe", conversation_id=MISSING) == "not_found"
    await socket.send("conversation.unsubscribe", conversation_id=str(own.id))
    await socket.send("ping")
    assert await socket.receive() == {"type": "pong"}


async def test_unknown_model_is_unavailable(alice, model, connect):
    socket = await connect(alice)
    for slug in ("nobody", "", "scripted@9", "scripted@candidate", "scripted@", "x" * 5000, "@1"):
        assert await refuse_frame(socket, "message.create", content="a", model=slug) == "model_unavailable", slug


async def test_model_that_may_not_be_used_is_unavailable(alice, live, upstream, connect):
    def make() -> None:
        secret = make_model(upstream, "secret")
        secret.groups.add(Group.objects.create(name="few"))
        make_model(upstream, "off", is_enabled=False)
        unready = make_model(upstream, "unready")
        unready.versions.update(is_ready=False, not_ready_reason="no weights")

    await sync_to_async(make)()
    socket = await connect(alice)
    for slug in ("secret", "off", "unready"):
        assert await refuse_frame(socket, "message.create", content="a", model=slug) == "model_unavailable"


async def test_too_many_messages_a_minute_are_refused_with_a_time_to_come_back(alice, bob, model, connect, settings):
    settings.DIALOOP = replace(settings.DIALOOP, messages_per_minute=2)
    socket = await connect(alice)
    for _ in range(2):
        started = await socket.ask("[[tokens=1]]", model="scripted")
        await socket.finish(started["id"])
    error = await refuse(socket, json.dumps({"type": "message.create", "content": "a", "request_id": "r"}))
    assert (error["code"], error["request_id"]) == ("rate_limited", "r")
    assert 0 < error["retry_after"] <= 60
    other = await connect(bob)
    started = await other.ask("[[tokens=1]]", model="scripted")
    assert (await other.finish(started["id"]))["status"] == "complete"


# --- the handshake ----------------------------------------------------------------------------------------------------


async def assert_usable(socket: Socket) -> None:
    assert socket.accepted
    await socket.send("ping")
    assert await socket.receive() == {"type": "pong"}
    await socket.close()


async def assert_sent_away(socket: Socket) -> None:
    """Accepted, so that a page can read the code, and closed at once."""
    assert socket.accepted
    assert await socket.receive_close() == UNAUTHENTICATED
    await socket.close()


FOREIGN_ORIGINS = (
    "https://evil.example",
    "http://localhost:9999",
    "http://127.0.0.1",
    "http://127.0.0.1:9999",
    "http://localhost.evil.example",
    "http://user@evil.example",
    "null",
    "localhost",
)


async def test_foreign_origin_is_refused_at_the_handshake(alice, live):
    """A page of another site, or another port of this machine, must not speak with this person's cookie."""
    cookie = await sync_to_async(cookie_of)(alice)
    for origin in FOREIGN_ORIGINS:
        assert not (await Socket.open(cookie=cookie, origin=origin)).accepted, origin


async def test_own_origin_is_let_in(alice, live, settings):
    cookie = await sync_to_async(cookie_of)(alice)
    await assert_usable(await Socket.open(cookie=cookie, origin="http://localhost"))
    await assert_usable(await Socket.open(cookie=cookie, origin="https://localhost"))
    settings.DIALOOP = replace(settings.DIALOOP, public_url="https://chat.example.org")
    await assert_usable(await Socket.open(cookie=cookie, origin="https://chat.example.org"))


async def test_foreign_origin_is_refused_with_a_key_too(key, live):
    _, plain = key
    socket = await Socket.open(key=plain, origin="https://evil.example")
    assert not socket.accepted


async def test_unknown_path_is_refused(alice, live):
    cookie = await sync_to_async(cookie_of)(alice)
    for path in ("/", "/ws/", "/ws/chat", "/ws/chat/x", "/ws/other/"):
        assert not (await Socket.open(cookie=cookie, path=path)).accepted


async def test_key_needs_no_origin(key):
    _, plain = key
    await assert_usable(await Socket.open(key=plain))


async def test_nobody_is_sent_away(live):
    for cookie in ("", "sessionid=nonsense", "sessionid=", "sessionid=\xff"):
        await assert_sent_away(await Socket.open(cookie=cookie))


async def test_unknown_key_is_sent_away_even_beside_a_good_cookie(alice, live):
    cookie = await sync_to_async(cookie_of)(alice)
    for plain in ("dl-nonsense", "dl-", "\xff", "x" * 5000):
        await assert_sent_away(await Socket.open(key=plain))
        await assert_sent_away(await Socket.open(key=plain, cookie=cookie))


async def test_revoked_key_is_sent_away(key):
    row, plain = key
    await sync_to_async(accounts.revoke_key)(row)
    await assert_sent_away(await Socket.open(key=plain))


async def test_suspended_person_is_sent_away(alice, key):
    _, plain = key
    cookie = await sync_to_async(cookie_of)(alice)
    await sync_to_async(accounts.deactivate_user)(alice)
    await assert_sent_away(await Socket.open(cookie=cookie))
    await assert_sent_away(await Socket.open(key=plain))


async def test_ended_session_is_sent_away(alice, live):
    cookie = await sync_to_async(cookie_of)(alice)
    await sync_to_async(SessionStore(cookie.partition("=")[2]).delete)()
    await assert_sent_away(await Socket.open(cookie=cookie))


# --- while it is open -------------------------------------------------------------------------------------------------


async def test_revoked_key_ends_its_sockets_and_no_others(alice, key, connect):
    row, plain = key
    _, other_plain = await sync_to_async(ApiKey.create_for)(alice)
    mine, other = await Socket.open(key=plain), await Socket.open(key=other_plain)
    browser = await connect(alice)
    await sync_to_async(accounts.revoke_key)(row)
    assert await mine.receive_close() == UNAUTHENTICATED
    await assert_usable(other)
    await browser.send("ping")
    assert await browser.receive() == {"type": "pong"}


async def test_suspension_ends_all_sockets_of_the_person(alice, bob, key, connect):
    _, plain = key
    sockets = [await connect(alice), await connect(alice), await Socket.open(key=plain)]
    other = await connect(bob)
    await sync_to_async(accounts.deactivate_user)(alice)
    for socket in sockets:
        assert await socket.receive_close() == UNAUTHENTICATED
    await other.send("ping")
    assert await other.receive() == {"type": "pong"}


async def test_signing_out_ends_the_sockets_of_that_session_only(alice, live, connect):
    from django.test import Client

    from tests.conftest import PASSWORD

    def sign_in() -> Client:
        client = Client()
        client.post("/accounts/login/", {"login": "alice", "password": PASSWORD})
        return client

    client = await sync_to_async(sign_in)()
    socket = await Socket.open(cookie=f"sessionid={client.cookies['sessionid'].value}")
    other = await connect(alice)
    await sync_to_async(client.post)("/accounts/logout/")
    assert await socket.receive_close() == UNAUTHENTICATED
    await other.send("ping")
    assert await other.receive() == {"type": "pong"}


async def test_access_that_ended_unheard_is_forbidden_at_the_next_frame(alice, key, model):
    """The news of it may be lost (Valkey was away): every frame asks again."""
    row, plain = key
    socket = await Socket.open(key=plain)
    await ApiKey.objects.filter(pk=row.pk).aupdate(revoked_at="2026-01-01T00:00:00Z")
    assert await refuse_frame(socket, "message.create", content="a", model="scripted") == "forbidden"
    await socket.close()


async def test_events_reach_every_socket_of_the_owner_and_nobody_elses(alice, bob, key, connect):
    _, plain = key
    mine = [await connect(alice), await connect(alice), await Socket.open(key=plain)]
    other = await connect(bob)
    event = ConversationUpdated(conversation={"id": MISSING, "title": "Rivers"})
    await sync_to_async(announce)(alice.id, event)
    for socket in mine:
        assert await socket.receive() == event.to_dict()
    assert await other.nothing_comes()
    await mine[-1].close()


async def test_a_conversation_somebody_begins_is_not_told_to_others(alice, bob, model, connect):
    mine, second, other = await connect(alice), await connect(alice), await connect(bob)
    started = await mine.ask("[[tokens=2]]", model="scripted")
    await mine.finish(started["id"])
    created = await second.receive_until("conversation.created")
    assert created["conversation"]["id"] == started["conversation_id"]
    assert "request_id" not in created
    assert await other.nothing_comes()


async def test_signed_out_socket_that_was_not_told_is_refused(alice, model, connect):
    """The word that ends a socket may be lost with Valkey; the next request finds out all the same."""
    socket = await connect(alice)
    await sync_to_async(Session.objects.all().delete)()
    assert await refuse_frame(socket, "message.create", content="[[tokens=2]]", model="scripted") == "forbidden"
