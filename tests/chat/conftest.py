"""Fixtures of the socket's tests: a hub that ends with the test, a scripted model, sockets that are closed."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async

from chat import replies
from chat.replies import database
from models_hub import breaker, clients
from models_hub.clients import retries
from tests.chat.support import Socket, cookie_of, make_model
from tests.support.fixtures import upstream  # noqa: F401


@pytest.fixture(autouse=True)
def _fast_retries(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_DELAY", 0.001)


@pytest.fixture(autouse=True)
def _closed_breakers():
    breaker.reset()
    yield
    breaker.reset()


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
