"""The middleware that logs one line for each request."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import structlog
from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware
from django.utils.functional import LazyObject, empty

# Asked every few seconds by whoever watches this instance, or by a browser for every page.
QUIET_PATHS = ("/healthz", "/readyz", "/metrics", "/static/")
MAX_PATH = 200

request_logger = structlog.stdlib.get_logger("dialoop.request")


@sync_and_async_middleware
def request_log(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """One line for each request: method, route, status, duration. Without the query: a search is what people said."""
    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            started = time.perf_counter()
            response = await get_response(request)
            _log_request(request, response, started)
            return response

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        started = time.perf_counter()
        response = get_response(request)
        _log_request(request, response, started)
        return response

    return synchronous


def _log_request(request: HttpRequest, response: HttpResponseBase, started: float) -> None:
    log = request_logger.debug if request.path.startswith(QUIET_PATHS) else request_logger.info
    log(
        "request",
        method=request.method,
        **describe_target(request),
        status=response.status_code,
        duration_ms=round((time.perf_counter() - started) * 1000, 1),
        user_id=known_user_id(request),
    )


def describe_target(request: HttpRequest) -> dict[str, Any]:
    """The route and the ids in it. Other parts of a path may be a key, such as a password reset's."""
    match = request.resolver_match
    if match is None:
        return {"path": request.path[:MAX_PATH]}
    ids = {name: str(value) for name, value in match.kwargs.items() if isinstance(value, (int, UUID))}
    return {"route": f"/{match.route}", **ids}


def known_user_id(request: HttpRequest) -> int | None:
    """The signed-in person's id if the request has asked for it already: a log line is no reason for a query."""
    user = getattr(request, "user", None)
    is_unknown = isinstance(user, LazyObject) and user._wrapped is empty
    return None if is_unknown else getattr(user, "pk", None)
