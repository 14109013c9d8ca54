"""Daphne as Dialoop runs it: large bodies are refused before they are read, long answers wait for slow readers, and
stopping says goodbye first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from daphne.endpoints import build_endpoint_description_strings
from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.server import Server, twisted_loop
from twisted.internet import defer, reactor
from twisted.web.http import HTTPChannel

MAX_BODY_BYTES = 5 * 1024 * 1024
# A refused sender may still be writing: reading on for a moment lets it see the answer instead of a reset.
LINGER_SECONDS = 5.0
GOODBYE_SECONDS = 8.0
REFUSAL_BODY = b'{"code": "too_long", "message": "The request is larger than 5 MiB.", "fields": {}}'
REFUSAL = (
    b"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(REFUSAL_BODY), REFUSAL_BODY)
)

Hook = Callable[[], Coroutine[Any, Any, None]]
logger = logging.getLogger(__name__)


class Flow:
    """Whether the reader keeps up; told by Twisted, which calls this a producer."""

    def __init__(self) -> None:
        self._is_open = asyncio.Event()
        self._is_open.set()
        self.wait = self._is_open.wait

    def pauseProducing(self) -> None:
        self._is_open.clear()

    def resumeProducing(self) -> None:
        self._is_open.set()

    stopProducing = resumeProducing


class LimitedRequest(WebRequest):
    """Daphne keeps a whole body before the application sees it, so the limit has to stand here.

    It also takes whatever the application sends, as fast as it comes: `flow` lets a download wait for a slow reader.
    """

    _refused = False
    _received = 0
    flow: Flow | None = None

    def begin_flow(self) -> None:
        if self.flow is None and not self.finished and self.channel is not None:
            self.flow = Flow()
            self.registerProducer(self.flow, True)

    def finish(self) -> None:
        self._end_flow()
        super().finish()

    def connectionLost(self, reason: Any) -> None:
        if self.flow is not None:
            self.flow.resumeProducing()
        super().connectionLost(reason)

    def _end_flow(self) -> None:
        if self.flow is not None and self.producer is self.flow:
            self.unregisterProducer()

    def gotLength(self, length: int | None) -> None:
        if length is not None and length > MAX_BODY_BYTES:
            super().gotLength(0)
            self._refuse()
        else:
            super().gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > MAX_BODY_BYTES:  # a chunked body does not say its length
            self._refuse()
        if not self._refused:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if not self._refused:
            super().requestReceived(command, path, version)

    def _refuse(self) -> None:
        if self._refused:
            return
        self._refused = True
        self.requestHeaders.removeHeader(b"Expect")
        channel: HTTPChannel = self.channel
        channel.persistent = False
        channel.transport.write(REFUSAL)
        channel.transport.loseWriteConnection()
        reactor.callLater(LINGER_SECONDS, channel.transport.abortConnection)


class LimitedFactory(HTTPFactory):
    def buildProtocol(self, addr: Any) -> Any:
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = LimitedRequest
        return protocol


class WebServer(Server):
    """Daphne's server with our requests and our end; `on_stop` runs while the open connections still work."""

    def __init__(self, application: Any, *, host: str, port: int, on_start: Hook | None, on_stop: Hook | None) -> None:
        super().__init__(
            application,
            endpoints=build_endpoint_description_strings(host=host, port=port),
            server_name="",
            ping_interval=20,
            ping_timeout=30,
            websocket_timeout=-1,  # a tab may stay open for days
            application_close_timeout=10,
        )
        self._on_start = on_start
        self._on_stop = on_stop

    @property
    def http_factory(self) -> LimitedFactory:
        return self._limited_factory

    @http_factory.setter
    def http_factory(self, factory: HTTPFactory) -> None:
        """Daphne makes its own factory in `run` and listens with what it finds here: ours takes its place."""
        self._limited_factory = LimitedFactory(self)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises OSError when the address cannot be listened on."""
        if self._on_start is not None:
            reactor.callLater(0, asyncio.ensure_future, self._on_start(), loop=twisted_loop)
        super().run()
        if not self.listening_addresses:
            raise OSError(f"cannot listen on {', '.join(self.endpoints)}")

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        if not (message.get("more_body") and isinstance(protocol, LimitedRequest)):
            return await super().handle_reply(protocol, message)
        protocol.begin_flow()
        await super().handle_reply(protocol, message)
        if protocol.flow is not None:
            await protocol.flow.wait()

    def kill_all_applications(self) -> defer.Deferred[None]:
        """Daphne calls this before the reactor ends, and waits for it."""
        return defer.Deferred.fromFuture(asyncio.ensure_future(self._say_goodbye(), loop=twisted_loop))

    async def _say_goodbye(self) -> None:
        for listening in self.listeners:
            listening.addCallback(lambda port: port.stopListening())
        if self._on_stop is not None:
            try:
                await asyncio.wait_for(self._on_stop(), GOODBYE_SECONDS)
            except TimeoutError:
                logger.warning("replies were not flushed in time", extra={"seconds": GOODBYE_SECONDS})
        running = [details.get("application_instance") for details in self.connections.values()]
        unfinished = [application for application in running if application is not None and not application.done()]
        for application in unfinished:
            application.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        logger.info("web stopped", extra={"connections": len(unfinished)})
