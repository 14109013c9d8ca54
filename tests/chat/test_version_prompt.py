"""A version is asked as it was trained: with its own system prompt, unless somebody gives another."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from chat.models import Conversation
from models_hub import services
from models_hub.models import PRODUCTION, ModelVersion
from tests.chat.support import make_model

TRAINED = "You are the harbour's assistant."


@pytest.fixture
async def trained(live, upstream):
    def make():
        model = make_model(upstream)
        ModelVersion.objects.filter(model=model).update(system_prompt=TRAINED)
        return model

    return await sync_to_async(make)()


async def ask(socket, text: str, **fields) -> dict:
    started = await socket.ask(text, **fields)
    return await socket.finish(started["id"])


def asked(upstream) -> list[dict]:
    """What the provider was sent last."""
    return upstream.requests[-1].body["messages"]


async def test_a_version_is_asked_with_the_prompt_it_was_trained_with(alice, trained, connect, upstream):
    socket = await connect(alice)
    await ask(socket, "Where are we?", model="scripted")
    assert asked(upstream) == [{"role": "system", "content": TRAINED}, {"role": "user", "content": "Where are we?"}]


async def test_an_addressed_version_brings_its_prompt_too(alice, trained, connect, upstream):
    socket = await connect(alice)
    await ask(socket, "Where are we?", model="scripted@1")
    assert asked(upstream)[0] == {"role": "system", "content": TRAINED}


async def test_a_persons_own_prompt_goes_before(alice, trained, connect, upstream):
    socket = await connect(alice)
    ended = await ask(socket, "Hi", model="scripted", options={"system_prompt": "Be brief."})
    assert [message["content"] for message in asked(upstream)] == ["Be brief.", "Hi"]
    # The conversation keeps it.
    await ask(socket, "And now?", conversation_id=ended["conversation_id"])
    assert asked(upstream)[0] == {"role": "system", "content": "Be brief."}
    await sync_to_async(Conversation.objects.update)(system_prompt="")
    await ask(socket, "And now?", conversation_id=ended["conversation_id"])
    assert asked(upstream)[0] == {"role": "system", "content": TRAINED}


async def test_the_next_message_goes_to_what_was_promoted(alice, trained, connect, upstream):
    socket = await connect(alice)
    ended = await ask(socket, "One", model="scripted")
    assert ended["version"] == 1

    def promote():
        second = services.add_version(trained, provider_model="scripted-2")
        ModelVersion.objects.filter(pk=second.pk).update(system_prompt="You are new.")
        services.move_alias(trained, PRODUCTION, second, actor=None, reason="Better.")

    await sync_to_async(promote)()
    ended = await ask(socket, "Two", conversation_id=ended["conversation_id"])
    assert ended["version"] == 2
    assert upstream.requests[-1].body["model"] == "scripted-2"
    assert asked(upstream)[0] == {"role": "system", "content": "You are new."}


async def test_a_reply_is_continued_by_the_version_that_began_it(alice, trained, connect, upstream):
    socket = await connect(alice)

    async def cut(**fields) -> dict:
        started = await socket.ask("[[tokens=30 rate=60]]", **fields)
        await socket.receive_until("reply.delta")
        await socket.send("reply.cancel", message_id=started["id"])
        return await socket.finish(started["id"])

    async def go_on(message: dict) -> dict:
        await socket.send("reply.continue", message_id=message["id"])
        await socket.receive_until("reply.started")
        return await socket.finish(message["id"])

    def promote() -> None:
        second = services.add_version(trained, provider_model="scripted-2")
        services.move_alias(trained, PRODUCTION, second, actor=None, reason="Better.")

    first, other = await cut(model="scripted"), await cut(model="scripted")
    await sync_to_async(promote)()
    ended = await go_on(first)
    assert (ended["version"], upstream.chats[-1].body["model"]) == (1, "scripted")
    await sync_to_async(ModelVersion.objects.filter(model=trained, number=1).update)(retired_at=timezone.now())
    ended = await go_on(other)
    assert (ended["version"], upstream.chats[-1].body["model"]) == (2, "scripted-2")


async def test_a_fallback_gets_its_own_prompt(alice, trained, connect, upstream):
    def make():
        model = make_model(upstream, "down", script="fail=404", fallback=trained)
        ModelVersion.objects.filter(model=model).update(system_prompt="You are down.")

    await sync_to_async(make)()
    socket = await connect(alice)
    ended = await ask(socket, "Hi", model="down")
    assert (ended["model"], ended["requested_model"]) == ("scripted", "down")
    assert [message["content"] for message in asked(upstream)] == [TRAINED, "Hi"]
