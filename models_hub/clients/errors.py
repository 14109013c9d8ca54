"""Turns what the SDK, its HTTP library and providers' error bodies say into our errors: once, here."""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx2
import openai

from models_hub.base import (
    ContextLengthExceededError,
    ModelHubError,
    ModelNotReadyError,
    ProviderAuthenticationError,
    ProviderBadResponseError,
    ProviderError,
    ProviderNotFoundError,
    ProviderRateLimitError,
    ProviderRefusedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ProviderUnreachableError,
)
from models_hub.targets import ModelTarget

# Codes and types as OpenAI, llama.cpp and our engine send them.
CONTEXT_CODES = {"context_length_exceeded", "exceed_context_size_error"}
STATUS_OF_CODE = {
    "invalid_api_key": 401,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "overloaded_error": 503,
    "engine_busy": 503,
    "engine_restarted": 503,
    "engine_stopping": 503,
}
DETAIL_CHARS = 500


@contextmanager
def mapped_errors(target: ModelTarget, *, silence: float) -> Iterator[None]:
    """Everything that can go wrong while talking to a provider leaves as a ModelHubError."""
    name = target.name
    try:
        yield
    except openai.APIStatusError as error:
        raise error_from_answer(target, error.status_code, error.body, error.response.headers) from error
    except (TimeoutError, openai.APITimeoutError, httpx2.TimeoutException) as error:
        # aiohttp's transport calls every failed connection a timeout, a refused one as well.
        if isinstance(error.__cause__, httpx2.ConnectTimeout):
            raise ProviderUnreachableError(f"The provider of {name} cannot be reached.") from error
        raise ProviderTimeoutError(f"The provider of {name} was silent for {silence:g} seconds.") from error
    except openai.APIConnectionError as error:
        detail = type(error.__cause__).__name__
        is_refused = isinstance(error.__cause__, httpx2.ConnectError)
        kind = ProviderUnreachableError if is_refused else ProviderUnavailableError
        raise kind(f"The provider of {name} cannot be reached.", detail=detail) from error
    except httpx2.TransportError as error:
        message = f"The provider of {name} broke off in the middle of its answer."
        raise ProviderBadResponseError(message, detail=type(error).__name__) from error
    except (openai.APIError, httpx2.HTTPError, json.JSONDecodeError, UnicodeDecodeError) as error:
        message = f"The provider of {name} sent an answer that makes no sense."
        raise ProviderBadResponseError(message, detail=type(error).__name__) from error


def error_from_answer(
    target: ModelTarget, status: int | None, body: object, headers: Mapping[str, str] | None = None
) -> ModelHubError:
    """The error an HTTP status and an error body stand for; `status` is None for an error inside a stream."""
    fields = body if isinstance(body, dict) else {}
    code = str(fields.get("code") or fields.get("type") or "")
    detail = str(fields.get("message") or body or "")[:DETAIL_CHARS]
    if {str(fields.get("code")), str(fields.get("type"))} & CONTEXT_CODES:
        return _context_error(target, fields, detail)
    if code == ModelNotReadyError.code:
        return ModelNotReadyError(detail or f"{target.name} is not ready.", detail=detail)
    status = status or STATUS_OF_CODE.get(code) or (int(code) if code.isdigit() else 0)
    return _provider_error(target, status, detail, retry_after=read_retry_after(headers or {}))


def _provider_error(target: ModelTarget, status: int, detail: str, *, retry_after: float | None) -> ProviderError:
    name = target.name
    if status in {401, 403}:
        return ProviderAuthenticationError(f"The provider of {name} does not accept the key.", detail=detail)
    if status == 404:
        return ProviderNotFoundError(f"The provider does not know the model of {name}.", detail=detail)
    if status == 408:
        return ProviderTimeoutError(f"The provider of {name} took too long.", detail=detail)
    if status == 429:
        message = f"The provider of {name} is limiting requests."
        return ProviderRateLimitError(message, detail=detail, retry_after=retry_after)
    if status >= 500:
        message = f"The provider of {name} has a fault (status {status})."
        return ProviderUnavailableError(message, detail=detail, retry_after=retry_after)
    if status:
        return ProviderRefusedError(f"The provider of {name} refused the request ({status}).", detail=detail)
    return ProviderBadResponseError(f"The provider of {name} reported an error.", detail=detail)


def _context_error(target: ModelTarget, fields: dict, detail: str) -> ContextLengthExceededError:
    # OpenAI says both numbers only in its sentence; they make the next cut exact but decide nothing.
    numbers = sorted(int(number) for number in re.findall(r"(\d+) tokens", detail))
    window = fields.get("context_window") or fields.get("n_ctx") or (numbers[0] if numbers else None)
    prompt = fields.get("prompt_tokens") or fields.get("n_prompt_tokens") or (numbers[-1] if numbers[1:] else None)
    message = f"The conversation is longer than {target.name} can read."
    return ContextLengthExceededError(message, context_window=window, prompt_tokens=prompt)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a number of milliseconds or seconds, or an HTTP date."""
    for header, divisor in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(header, "")) / divisor
        except ValueError:
            continue
        return max(0.0, seconds) if math.isfinite(seconds) else None
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None
