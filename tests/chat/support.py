"""A chat socket as a test holds it, and the model it talks to."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.test import Client

from config.routing import socket_application
from models_hub.models import PRODUCTION, Alias, Connection, ModelVersion, RegisteredModel

ENDS = ("reply.completed", "reply.stopped", "reply.failed", "reply.interrupted")
TIMEOUT = 20


def make_model(upstream, slug: str = "scripted", script: str = "", **fields: Any) -> RegisteredModel:
    """A model at the scripted upstream; each has a connection of its own."""
    connection = Connection.objects.create(
        name=f"Scripted {uuid4()}", kind=Connection.Kind.OPENAI_CHAT, base_url=upstream.base_url
    )
    model = RegisteredModel.objects.create(slug=slug, name=slug.title(), connection=connection, **fields)
    version = ModelVersion.objects.create(model=model, number=1, provider_model=script or slug)
    Alias.objects.create(model=model, name=PRODUCTION, version=version)
    return model


def cookie_of(user) -> str:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"


class Socket:
    """Keeps every frame it got in `frames`."""

    def __init__(self, communicator: WebsocketCommunicator) -> None:
        self._communicator = communicator
        self.frames: list[dict[str, Any]] = []

    @classmethod
    async def open(cls, *, cookie: str = "", key: str = "", origin: str = "", path: str = "/ws/chat/") -> Socket:
        headers = [(b"host", b"localhost")]
        for name, value in (("cookie", cookie), ("authorization", key and f"Bearer {key}"), ("origin", origin)):
            if value:
                headers.append((name.encode(), value.encode()))
        socket = cls(WebsocketCommunicator(socket_application, path, headers=headers))
        socket.accepted, socket.close_code = await socket._communicator.connect(timeout=TIMEOUT)
        return socket

    async def send(self, kind: str, **fields: Any) -> None:
        await self._communicator.send_to(text_data=json.dumps({"type": kind, **fields}))

    async def send_raw(self, **data: Any) -> None:
        await self._communicator.send_to(**data)

    async def receive(self) -> dict[str, Any]:
        frame = json.loads(await self._communicator.receive_from(timeout=TIMEOUT))
        self.frames.append(frame)
        return frame

    async def receive_until(self, *kinds: str, where=lambda frame: True) -> dict[str, Any]:
        """The next frame of one of these kinds; what comes before is kept in `frames`."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                frame = await self.receive()
                if frame["type"] in kinds and where(frame):
                    return frame

    async def receive_close(self) -> int:
        async with asyncio.timeout(TIMEOUT):
            while True:
                output = await self._communicator.receive_output(timeout=TIMEOUT)
                if output["type"] == "websocket.close":
                    return output["code"]

    async def nothing_comes(self) -> bool:
        return await self._communicator.receive_nothing(timeout=0.2)

    async def ask(self, content: str, **fields: Any) -> dict[str, Any]:
        """Send a message; returns its `reply.started` message."""
        await self.send("message.create", content=content, **fields)
        return (await self.receive_until("reply.started"))["message"]

    async def finish(self, message_id: str) -> dict[str, Any]:
        """The end frame's message."""
        frame = await self.receive_until(*ENDS, where=lambda frame: frame["message"]["id"] == message_id)
        return frame["message"]

    def deltas(self, message_id: str) -> list[dict[str, Any]]:
        return [f for f in self.frames if f["type"] == "reply.delta" and f["message_id"] == message_id]

    def text(self, message_id: str) -> str:
        return "".join(frame.get("text", "") for frame in self.deltas(message_id))

    async def close(self) -> None:
        await self._communicator.disconnect()


def assert_whole(socket: Socket, message: dict[str, Any], *, first: int = 1) -> None:
    """Numbers go up by one from `first`, and the deltas joined are the content."""
    numbers = [frame["sequence_number"] for frame in socket.deltas(message["id"])]
    assert numbers == list(range(first, message["last_sequence_number"] + 1))
    if first == 1:
        assert socket.text(message["id"]) == message["content"]
