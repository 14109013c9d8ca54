"""Trees of messages, and for the socket: a hub that ends with the test, a scripted model, sockets that are closed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from chat import replies
from chat.models import Conversation, Message
from chat.replies import database
from models_hub import clients
from tests.chat.support import Socket, cookie_of, make_model
from tests.support.fixtures import closed_breakers, fast_retries, upstream  # noqa: F401


def make_message(conversation, content="Hello", *, role="user", parent=None, **fields):
    depth = parent.depth + 1 if parent else 0
    return Message.objects.create(
        conversation=conversation, parent=parent, depth=depth, role=role, content=content, **fields
    )


def make_conversation(owner, title="A talk", *texts, **fields):
    """The texts become turns, question and answer, one below the other."""
    conversation = Conversation.objects.create(owner=owner, title=title, model="tiny", **fields)
    start = timezone.now() - timedelta(hours=1)
    parent = None
    for number, text in enumerate(texts):
        role = "assistant" if number % 2 else "user"
        written = start + timedelta(milliseconds=number)
        parent = make_message(conversation, text, role=role, parent=parent, created_at=written)
    if parent:
        conversation.current_leaf = parent
        conversation.save(update_fields=["current_leaf"])
    return conversation


@pytest.fixture
def talk(alice):
    return make_conversation(alice, "Rivers", "Which river is longest?", "The Nile.", "And in Europe?", "The Volga.")


@pytest.fixture
async def live(transactional_db):
    """What runs in the loop ends with the test, before the database is cleaned."""
    yield
    await replies.shutdown()
    await clients.close_clients()
    await sync_to_async(database.close_all)()


@pytest.fixture
async def model(live, upstream):  # noqa: F811
    return await sync_to_async(make_model)(upstream)


@pytest.fixture
async def connect(live):
    """Opens sockets: `await connect(user)`."""
    sockets: list[Socket] = []

    async def open_socket(user) -> Socket:
        socket = await Socket.open(cookie=await sync_to_async(cookie_of)(user))
        sockets.append(socket)
        return socket

    yield open_socket
    for socket in sockets:
        await socket.close()
