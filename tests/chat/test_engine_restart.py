"""While our own engine starts again nobody listens at its address: that is no reason to give it a rest afterwards."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async

from models_hub import breaker
from models_hub.models import Connection
from tests.chat.support import make_model
from tests.support.upstream import Upstream


@pytest.fixture
def address(upstream) -> tuple[str, int]:
    """Where nobody listens any more; `upstream` itself is elsewhere."""
    gone = Upstream().start()
    gone.stop()
    return gone._address


async def ask(socket, model: str) -> dict:
    started = await socket.ask("Are you back?", model=model)
    return await socket.finish(started["id"])


@pytest.mark.parametrize("task", ["chat", "classification"])
async def test_an_engine_that_is_back_answers_at_once(alice, live, connect, upstream, address, task):
    host, port = address

    def move() -> None:
        model = make_model(upstream, "ours", task=task)
        Connection.objects.filter(pk=model.connection_id).update(kind="engine", base_url=f"http://{host}:{port}")

    await sync_to_async(move)()
    socket = await connect(alice)
    for _ in range(breaker.FAILURES_TO_OPEN + 1):
        ended = await ask(socket, "ours")
        assert ended["error"]["code"] == "provider_unavailable"
        assert ended["error"]["retryable"]
    again = Upstream(host=host, port=port).start()
    try:
        assert (await ask(socket, "ours"))["status"] == "complete"
    finally:
        again.stop()


async def test_another_provider_that_is_gone_is_given_a_rest(alice, live, connect, upstream, address):
    def move() -> None:
        model = make_model(upstream, "theirs")
        Connection.objects.filter(pk=model.connection_id).update(base_url=f"http://{address[0]}:{address[1]}/v1")

    await sync_to_async(move)()
    socket = await connect(alice)
    for _ in range(breaker.FAILURES_TO_OPEN):
        await ask(socket, "theirs")
    await socket.send("message.create", content="Are you back?", model="theirs")
    assert (await socket.receive_until("error"))["code"] == "model_unavailable"
