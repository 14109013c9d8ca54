"""The engine over HTTP: the routes, the key, and errors in OpenAI's shape. No model logic here."""

from __future__ import annotations

import contextlib
import hmac
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import structlog
from aiohttp import web

from models_hub.engine.answers import DONE, ChatAnswer, event, model_to_dict, usage_to_dict
from models_hub.engine.chat import Delta, Finished, Started
from models_hub.engine.encoders import LabelScore
from models_hub.engine.engine import Engine
from models_hub.engine.errors import (
    EngineError,
    EngineStoppingError,
    InvalidKeyError,
    InvalidRequestError,
    RequestTooLargeError,
    UnknownPathError,
)
from models_hub.engine.fields import parse_object
from models_hub.engine.formats import ChatRequest, parse_chat, parse_classify, parse_fill_mask, parse_tokenize

log = structlog.get_logger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ENGINE = web.AppKey("engine", Engine)
MAX_BODY_BYTES = 32 * 1024 * 1024
SHUTDOWN_SECONDS = 0.5


def build_app(engine: Engine) -> web.Application:
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[answer_errors, check_key])
    app[ENGINE] = engine
    app.add_routes(
        [
            web.get("/health", health),
            web.get("/v1/models", list_models),
            web.post("/v1/chat/completions", chat_completions),
            web.post("/v1/classify", classify),
            web.post("/v1/fill-mask", fill_mask),
            web.post("/v1/tokenize", tokenize),
        ]
    )
    return app


class Server:
    """An engine listening on one address. `start` gives the port, which with port 0 the system chooses."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # A client that hangs up cancels its handler, and with it the request in the batch.
        self._runner = web.AppRunner(
            build_app(engine), handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS
        )

    async def start(self, host: str, port: int) -> int:
        """Raises `OSError` when the address cannot be had."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, reuse_address=True).start()
        await self._engine.start()
        return self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Fail what runs with an error that can be retried, then close."""
        await self._engine.stop()
        await self._runner.cleanup()


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    started = time.monotonic()
    try:
        response = await handler(request)
    except EngineError as error:
        response = _answer_error(error)
    except web.HTTPRequestEntityTooLarge:
        response = _answer_error(RequestTooLargeError(f"The body is larger than {MAX_BODY_BYTES} bytes."))
    except web.HTTPException as error:
        refusal = UnknownPathError(f"{request.method} {request.path} is not served here: {error.reason}.")
        refusal.status = error.status
        response = _answer_error(refusal)
    except Exception as error:  # the outermost door: without it the answer would be no JSON
        log.exception("engine.request_failed", path=request.path)
        response = _answer_error(EngineError(f"The engine failed on this request: {type(error).__name__}."))
    log.debug("engine.request", path=request.path, status=response.status, ms=_milliseconds(started))
    return response


@web.middleware
async def check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path != "/health" and not _has_key(request):
        raise InvalidKeyError("Send the engine's key as: Authorization: Bearer <ENGINE_API_KEY>.")
    if request.app[ENGINE].is_stopping and request.path != "/health":
        raise EngineStoppingError("The engine is stopping.")
    return await handler(request)


async def health(request: web.Request) -> web.Response:
    """Anyone on this machine may ask whether; only who has the key is told what."""
    engine = request.app[ENGINE]
    facts = engine.describe() if _has_key(request) else {"status": engine.status}
    return web.json_response(facts, status=200 if engine.status == "ok" else 503)


async def list_models(request: web.Request) -> web.Response:
    names = await request.app[ENGINE].list_names()
    return web.json_response({"object": "list", "data": [model_to_dict(name) for name in names]})


async def chat_completions(request: web.Request) -> web.StreamResponse:
    chat = parse_chat(await _read_object(request))
    return await (_stream_reply if chat.stream else _whole_reply)(request, chat)


async def classify(request: web.Request) -> web.Response:
    query = parse_classify(await _read_object(request))
    rows, tokens = await request.app[ENGINE].classify(query)
    data = [_labels(row) for row in rows]
    return web.json_response({"object": "list", "model": query.model, "data": data, "usage": usage_to_dict(tokens, 0)})


async def fill_mask(request: web.Request) -> web.Response:
    query = parse_fill_mask(await _read_object(request))
    filled = await request.app[ENGINE].fill_mask(query)
    data = [_labels(row) for row in filled.candidates]
    usage = usage_to_dict(filled.tokens, len(data))
    return web.json_response(
        {"object": "list", "model": query.model, "data": data, "text": filled.text, "usage": usage}
    )


async def tokenize(request: web.Request) -> web.Response:
    query = parse_tokenize(await _read_object(request))
    tokens, window = await request.app[ENGINE].count_tokens(query)
    return web.json_response({"model": query.model, "tokens": tokens, "context_window": window})


async def _whole_reply(request: web.Request, chat: ChatRequest) -> web.Response:
    texts: list[str] = []
    async with aclosing(request.app[ENGINE].reply(chat)) as events:
        async for part in events:
            if isinstance(part, Delta):
                texts.append(part.text)
            elif isinstance(part, Finished):
                return web.json_response(ChatAnswer(chat.model).whole("".join(texts), part))
    raise EngineError("The reply ended without a finish reason.")


async def _stream_reply(request: web.Request, chat: ChatRequest) -> web.StreamResponse:
    """Headers go out once the request has its place: until then an error still has its own status."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    answer = ChatAnswer(chat.model)
    try:
        async with aclosing(request.app[ENGINE].reply(chat)) as events:
            async for part in events:
                if isinstance(part, Started):
                    await response.prepare(request)
                    await response.write(answer.role_chunk())
                elif isinstance(part, Delta):
                    await response.write(answer.text_chunk(part.text))
                else:
                    await response.write(_ending(answer, part, chat))
    except EngineError as error:
        if not response.prepared:
            raise
        # Too late for a status: the error is an event, and no [DONE] follows it.
        await response.write(event(error.to_dict()))
    with contextlib.suppress(ConnectionResetError):
        await response.write_eof()
    return response


def _ending(answer: ChatAnswer, finished: Finished, chat: ChatRequest) -> bytes:
    usage = answer.usage_chunk(finished) if chat.include_usage else b""
    return answer.end_chunk(finished) + usage + DONE


async def _read_object(request: web.Request) -> dict[str, Any]:
    try:
        return parse_object(await request.read())
    except web.RequestPayloadError as error:
        raise InvalidRequestError("The body could not be read.") from error


def _has_key(request: web.Request) -> bool:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    expected = request.app[ENGINE].options.api_key
    is_right = hmac.compare_digest(key.strip().encode(errors="surrogateescape"), expected.encode())
    return bool(expected) and scheme.lower() == "bearer" and is_right


def _labels(row: list[LabelScore]) -> list[dict[str, Any]]:
    return [asdict(item) for item in row]


def _answer_error(error: EngineError) -> web.Response:
    return web.json_response(error.to_dict(), status=error.status, headers=error.headers())


def _milliseconds(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
