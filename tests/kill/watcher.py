"""A watcher: a real socket that comes back whenever it is lost, and notes every delta it is shown."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import uuid4

import aiohttp

COME_BACK_AFTER = 0.2
ENDS = {"reply.completed", "reply.stopped", "reply.failed", "reply.interrupted"}


@dataclass
class Seen:
    """What this watcher was shown of one reply, and what was wrong with it."""

    conversation_id: str
    last: int = 0
    texts: list[str] = field(default_factory=list)
    blocks: dict[int, str] = field(default_factory=dict)
    end: dict[str, Any] | None = None
    ended_at: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def add_delta(self, frame: dict[str, Any]) -> None:
        number = frame["sequence_number"]
        if number != self.last + 1:
            self.faults.append(f"delta {number} came after {self.last}")
        if self.end is not None and self.end["last_sequence_number"] < number:
            self.faults.append(f"delta {number} came after the end")
        self.last = number
        self.texts.append(frame.get("text", ""))

    def add_block(self, frame: dict[str, Any]) -> None:
        if frame["length"] > len(self.text):
            self.faults.append(f"block {frame['index']} came before the deltas it covers")
        if self.blocks.setdefault(frame["index"], frame["html"]) != frame["html"]:
            self.faults.append(f"block {frame['index']} came back different")

    def add_end(self, message: dict[str, Any]) -> None:
        if self.end is None:
            self.end, self.ended_at = message, time.monotonic()
        elif self.end != message:
            self.faults.append(f"ended twice, {self.end['status']} and {message['status']}")


class RefusedError(Exception):
    """The server answered a message with an error frame."""


class Watcher:
    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._address = address
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._requests: dict[str, tuple[dict[str, Any], asyncio.Future[dict[str, Any]]]] = {}
        self._news = asyncio.Condition()
        self.seen: dict[str, Seen] = {}
        self.times_lost = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def ask(self, content: str, **fields: Any) -> dict[str, Any]:
        """Send a message, again after every loss of the socket, until its reply has begun; the pending reply.

        Raises RefusedError.
        """
        request_id = uuid4().hex
        frame = {"type": "message.create", "request_id": request_id, "content": content, **fields}
        answer = asyncio.get_running_loop().create_future()
        self._requests[request_id] = (frame, answer)
        await self._send(frame)
        return await answer

    async def watch(self, reply: dict[str, Any]) -> None:
        self.seen.setdefault(reply["id"], Seen(reply["conversation_id"]))
        await self._subscribe([reply["id"]])

    async def drop(self) -> None:
        """Lose the socket, and come back as after every loss."""
        if self._socket is not None:
            await self._socket.close()

    async def wait(self, is_true: Any) -> None:
        """Until it is, looked at whenever a frame has come."""
        async with self._news:
            await self._news.wait_for(is_true)

    async def wait_for_end(self, message_id: str) -> dict[str, Any]:
        await self.wait(lambda: message_id in self.seen and self.seen[message_id].end is not None)
        return self.seen[message_id].end or {}

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with self._session.ws_connect(f"{self._address}/ws/chat/", origin=self._address) as socket:
                    self._socket = socket
                    await self._come_back()
                    async for message in socket:
                        if message.type is aiohttp.WSMsgType.TEXT:
                            await self._take(message.json())
            self._socket = None
            self.times_lost += 1
            await asyncio.sleep(COME_BACK_AFTER)

    async def _come_back(self) -> None:
        await self._subscribe([message_id for message_id, seen in self.seen.items() if seen.end is None])
        for frame, _ in list(self._requests.values()):
            await self._send(frame)

    async def _subscribe(self, message_ids: list[str]) -> None:
        after: dict[str, dict[str, int]] = {}
        for message_id in message_ids:
            seen = self.seen[message_id]
            after.setdefault(seen.conversation_id, {})[message_id] = seen.last
        for conversation_id, numbers in after.items():
            await self._send({"type": "conversation.subscribe", "conversation_id": conversation_id, "after": numbers})

    async def _send(self, frame: dict[str, Any]) -> None:
        """A frame that finds no socket, or a dying one, is sent when it is back."""
        if self._socket is not None:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await self._socket.send_json(frame)

    async def _take(self, frame: dict[str, Any]) -> None:
        kind = frame["type"]
        if kind == "reply.delta":
            self._seen(frame).add_delta(frame)
        elif kind == "reply.block":
            self._seen(frame).add_block(frame)
        elif kind in ENDS:
            self._seen(frame["message"], frame["message"]["id"]).add_end(frame["message"])
        elif frame.get("request_id") in self._requests:
            await self._take_answer(frame)
        async with self._news:
            self._news.notify_all()

    async def _take_answer(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "reply.started":
            _, answer = self._requests.pop(frame["request_id"])
            self._seen(frame["message"], frame["message"]["id"])
            answer.set_result(frame["message"])
        elif frame["type"] == "error" and frame["code"] == "unavailable":  # "send it again"
            await asyncio.sleep(COME_BACK_AFTER)
            await self._send(self._requests[frame["request_id"]][0])
        elif frame["type"] == "error":
            _, answer = self._requests.pop(frame["request_id"])
            answer.set_exception(RefusedError(f"{frame['code']}: {frame['message']}"))

    def _seen(self, frame: dict[str, Any], message_id: str = "") -> Seen:
        return self.seen.setdefault(message_id or frame["message_id"], Seen(frame["conversation_id"]))
