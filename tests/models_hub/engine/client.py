"""A small client of the engine for tests: real HTTP, nothing hidden."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

KEY = "key-of-the-tests"
PATIENCE = 60


@dataclass
class Reply:
    """A streamed reply, put together again."""

    deltas: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    usage: dict[str, int] | None = None
    error: dict[str, Any] | None = None
    is_done: bool = False

    @property
    def text(self) -> str:
        return "".join(self.deltas)

    def take(self, data: str) -> None:
        if data == "[DONE]":
            self.is_done = True
            return
        chunk = json.loads(data)
        self.error = chunk.get("error", self.error)
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk.get("choices", []):
            if choice["delta"].get("content"):
                self.deltas.append(choice["delta"]["content"])
            self.finish_reason = choice["finish_reason"] or self.finish_reason


class EngineClient:
    def __init__(self, port: int, engine: Any = None) -> None:
        self.engine = engine
        self.url = f"http://127.0.0.1:{port}"
        self.session = aiohttp.ClientSession(self.url, headers={"Authorization": f"Bearer {KEY}"})

    async def close(self) -> None:
        await self.session.close()

    async def get(self, path: str, **kwargs: Any) -> tuple[int, dict[str, Any]]:
        async with self.session.get(path, **kwargs) as response:
            return response.status, await response.json()

    async def post(self, path: str, body: Any, **kwargs: Any) -> tuple[int, dict[str, Any]]:
        sent = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self.session.post(path, **sent, **kwargs) as response:
            return response.status, await response.json()

    async def chat(self, model: str, content: str = "Hi", **fields: Any) -> tuple[int, dict[str, Any]]:
        return await self.post("/v1/chat/completions", chat_body(model, content, **fields))

    @asynccontextmanager
    async def open(self, model: str, content: str = "Hi", **fields: Any) -> AsyncIterator[AsyncIterator[str]]:
        """The data of each event of a streamed reply, while it runs. Leaving hangs up."""
        body = chat_body(model, content, stream=True, **fields)
        async with self.session.post("/v1/chat/completions", json=body) as response:
            assert response.status == 200, await response.text()
            yield _events(response)

    async def stream(self, model: str, content: str = "Hi", **fields: Any) -> Reply:
        reply = Reply()
        async with self.open(model, content, stream_options={"include_usage": True}, **fields) as events:
            async for data in events:
                reply.take(data)
        return reply

    async def health(self) -> dict[str, Any]:
        return (await self.get("/health"))[1]

    async def facts(self, name: str = "") -> dict[str, Any]:
        """What /health says of one model (the only one, or the one whose source ends so)."""
        models = (await self.health())["models"]
        return next((model for model in models if model["source"].endswith(name)), {})

    async def until(self, holds: Callable[[dict[str, Any]], bool], name: str = "") -> dict[str, Any]:
        """Wait until /health says so of a model."""
        async with asyncio.timeout(PATIENCE):
            while not holds(facts := await self.facts(name)):  # noqa: ASYNC110 - /health is all there is to ask
                await asyncio.sleep(0.02)
        return facts


def chat_body(model: str, content: str = "Hi", **fields: Any) -> dict[str, Any]:
    messages = fields.pop("messages", [{"role": "user", "content": content}])
    return {"model": model, "messages": messages, "temperature": 0, **fields}


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    async for line in response.content:
        if line.startswith(b"data: "):
            yield line.removeprefix(b"data: ").decode().strip()
