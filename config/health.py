"""`/healthz` says that the process runs, `/readyz` that every part of Dialoop answers. Neither needs a sign-in."""

from __future__ import annotations

import asyncio
import http.client
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import redis
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from config.app_settings import get_settings
from config.heartbeats import WORKER_QUEUES, heartbeat_key, worker_key
from config.valkey import get_valkey

PART_TIMEOUT = 1.0
HEALTHZ = "/healthz"
PartState = dict[str, Any]
# Without a proxy of the environment: the engine is ours, and it gets its key.
_engine_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


async def healthz(request: HttpRequest) -> HttpResponse:
    return _alive()


def _alive() -> HttpResponse:
    return HttpResponse("ok\n", content_type="text/plain", headers={"Cache-Control": "no-store"})


@sync_and_async_middleware
def answer_probes(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """`/healthz` before anything looks at the Host: who probes by address need not be in ALLOWED_HOSTS."""
    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            return _alive() if request.path_info == HEALTHZ else await get_response(request)

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        return _alive() if request.path_info == HEALTHZ else get_response(request)

    return synchronous


async def readyz(request: HttpRequest) -> JsonResponse:
    parts = await check_parts()
    status = 200 if all(part["ok"] for part in parts.values()) else 503
    return JsonResponse(parts, status=status, headers={"Cache-Control": "no-store"})


async def check_parts() -> dict[str, PartState]:
    """The state of each part, asked side by side; a part that stays silent is down after a second."""
    checks: Mapping[str, Awaitable[PartState]] = {
        "database": check_database(),
        "valkey": check_valkey(),
        "engine": check_engine(),
        "worker": check_workers(),
        "beat": check_beat(),
    }
    states = await asyncio.gather(*(_within(check) for check in checks.values()))
    return dict(zip(checks, states, strict=True))


async def _within(check: Awaitable[PartState]) -> PartState:
    try:
        return await asyncio.wait_for(check, PART_TIMEOUT)
    except TimeoutError:
        return _down("no answer in time")
    except (DatabaseError, redis.RedisError, http.client.HTTPException, OSError) as error:
        # The class only: an error's text may carry an address or a password.
        return _down(type(error).__name__)


def _down(reason: str) -> PartState:
    return {"ok": False, "reason": reason}


async def check_database() -> PartState:
    await sync_to_async(_select_one)()
    return {"ok": True}


def _select_one() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


async def check_valkey() -> PartState:
    await get_valkey().ping()
    return {"ok": True}


async def check_engine() -> PartState:
    """The engine answers 200 once it can serve."""
    status = await asyncio.to_thread(_ask_engine)
    return {"ok": True} if status == 200 else _down(f"status {status}")


def _ask_engine() -> int:
    """With the standard library: an HTTP client's package would cost the web process megabytes for this one call."""
    settings = get_settings()
    headers = {"Authorization": f"Bearer {settings.engine_api_key}"}
    request = urllib.request.Request(f"{settings.engine_url}/health", headers=headers)  # noqa: S310 - http or https
    try:
        with _engine_opener.open(request, timeout=PART_TIMEOUT) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


async def check_workers() -> PartState:
    values = await get_valkey().mget([worker_key(queue) for queue in WORKER_QUEUES])
    queues = {queue: value is not None for queue, value in zip(WORKER_QUEUES, values, strict=True)}
    return {"ok": all(queues.values()), "queues": queues}


async def check_beat() -> PartState:
    if await get_valkey().exists(heartbeat_key("beat")):
        return {"ok": True}
    return _down("no heartbeat")
