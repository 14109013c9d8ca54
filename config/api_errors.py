"""How every refusal of `/api` becomes {code, message, fields}, whoever raised it and wherever."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from chat.errors import ChatError
from config.api_schema import UnstorableTextError, error_response
from config.storable import is_storable
from models_hub.base import (
    ContextLengthExceededError,
    ModelHubError,
    ModelNotReadyError,
    ProviderError,
    ProviderUnavailableError,
    UnknownModelError,
)

log = structlog.get_logger(__name__)
API_PREFIX = "/api/"
SENTENCES = {
    400: ("invalid", "The request is not valid."),
    401: ("unauthenticated", "Sign in, or send an API key as “Authorization: Bearer …”."),
    403: ("forbidden", "This is not allowed."),
    404: ("not_found", "There is nothing here."),
    405: ("method_not_allowed", "This address does not know this method."),
    413: ("too_long", "The request is too large."),
    429: ("rate_limited", "Too many requests; try again in a moment."),
    500: ("internal", "Something went wrong on our side. It has been logged."),
}
MODEL_ERROR_STATUS: dict[type[ModelHubError], int] = {
    UnknownModelError: 404,
    ModelNotReadyError: 503,
    ContextLengthExceededError: 400,
    ProviderUnavailableError: 503,
    ProviderError: 502,
}


def standard_error(status: int) -> HttpResponse:
    code, sentence = SENTENCES.get(status, SENTENCES[500] if status >= 500 else SENTENCES[400])
    return error_response(status, code, sentence)


def add_error_handlers(api: NinjaAPI) -> None:
    handlers: dict[type[Exception], Callable[[HttpRequest, Any], HttpResponse]] = {
        ChatError: on_chat_error,
        ModelHubError: on_model_hub_error,
        ValidationError: on_validation_error,
        UnstorableTextError: lambda request, error: _invalid(str(error)),
        HttpError: on_http_error,
        AuthenticationError: lambda request, error: _unauthenticated(),
        PermissionDenied: lambda request, error: standard_error(403),
        Http404: lambda request, error: standard_error(404),
        RequestDataTooBig: lambda request, error: standard_error(413),
        Exception: on_unexpected,
    }
    for kind, handler in handlers.items():
        api.add_exception_handler(kind, handler)


def on_chat_error(request: HttpRequest, error: ChatError) -> HttpResponse:
    response = error_response(error.status, error.code, error.message, fields=error.fields)
    retry_after = error.fields.get("retry_after")
    if isinstance(retry_after, int | float):
        response["Retry-After"] = str(math.ceil(retry_after))
    return response


def on_model_hub_error(request: HttpRequest, error: ModelHubError) -> HttpResponse:
    status = next((status for kind, status in MODEL_ERROR_STATUS.items() if isinstance(error, kind)), 503)
    return error_response(status, error.code, error.message)


def on_validation_error(request: HttpRequest, error: ValidationError) -> HttpResponse:
    # An id in the address that cannot be one is simply nobody's.
    if any(_source(problem) == "path" for problem in error.errors):
        return standard_error(404)
    fields = {_field(problem): _sentence(problem) for problem in error.errors}
    message = " ".join(f"{name}: {sentence}" for name, sentence in fields.items())
    return _invalid(message, fields)


def _source(problem: dict[str, Any]) -> str:
    return str(problem["loc"][0])


def _field(problem: dict[str, Any]) -> str:
    # loc is (source, name of the handler's argument, field, ...) for a body, (source, field, ...) for a query.
    depth = 2 if _source(problem) == "body" and len(problem["loc"]) > 2 else 1
    return ".".join(str(part) for part in problem["loc"][depth:]) or "body"


def _sentence(problem: dict[str, Any]) -> str:
    if problem["type"] == "extra_forbidden":
        return "This field is not known here."
    return f"{problem['msg']}."


def on_http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    if isinstance(error.__cause__, UnstorableTextError):
        return _invalid(str(error.__cause__))
    if error.__cause__ is not None:
        return _invalid("The body is not valid JSON.")
    code, _ = SENTENCES.get(error.status_code, SENTENCES[400])
    return error_response(error.status_code, code, str(error))


def on_unexpected(request: HttpRequest, error: Exception) -> HttpResponse:
    """Django logs it with its traceback and answers 500; the middleware below gives that answer its shape."""
    raise error


def _invalid(message: str, fields: dict[str, Any] | None = None) -> HttpResponse:
    return error_response(400, "invalid", message, fields=fields)


def _unauthenticated() -> HttpResponse:
    response = standard_error(401)
    response["WWW-Authenticate"] = 'Bearer realm="Dialoop"'
    return response


class ApiErrorMiddleware:
    """Django's own pages for what never reached a handler (unknown address, wrong method, crash) get the same shape."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path_info.startswith(API_PREFIX):
            return self.get_response(request)
        if not is_storable(request.path_info):
            return standard_error(404)
        response = self.get_response(request)
        if response.status_code < 400 or response.headers.get("Content-Type", "").startswith("application/json"):
            return response
        # In place: its other headers (Allow, cookies, Vary) stay.
        response.content = standard_error(response.status_code).content
        response.headers["Content-Type"] = "application/json"
        response.headers.pop("Content-Length", None)
        return response
