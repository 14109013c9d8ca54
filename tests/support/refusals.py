"""The refusals OpenAI, or a proxy before it, gives: kind by kind."""

from __future__ import annotations

from aiohttp import web


def error_response(status: int, message: str, code: str | None, **more: object) -> web.Response:
    headers = {"Retry-After": str(more.pop("retry_after"))} if more.get("retry_after") else {}
    body = {"message": message, "type": "invalid_request_error", "param": more.get("param"), "code": code}
    return web.json_response({"error": body}, status=status, headers=headers)


def refused_parameter(name: str) -> web.Response:
    if name in {"max_tokens", "max_completion_tokens"}:
        other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}[name]
        message = f"Unsupported parameter: '{name}' is not supported with this model. Use '{other}' instead."
        return error_response(400, message, "unsupported_parameter", param=name)
    message = f"Unsupported value: '{name}' does not support this value with this model."
    return error_response(400, message, "unsupported_value", param=name)


def failure(kind: str, retry_after: str) -> web.Response:
    """The answers OpenAI (or a proxy before it) gives, kind by kind."""
    if kind == "html":
        return web.Response(text="<!doctype html><html><body>Sign in</body></html>", content_type="text/html")
    if kind == "garbage":
        return web.Response(body=b"\x00\x01\xff not json at all", content_type="text/event-stream")
    if kind == "json":
        return web.json_response({"hello": "world"})
    if kind == "context":
        message = "This model's maximum context length is 2048 tokens. However, your messages resulted in 3000 tokens."
        return error_response(400, message, "context_length_exceeded", param="messages")
    if kind == "not_ready":
        return error_response(503, "The model is not ready.", "model_not_ready")
    if kind == "bad":
        return error_response(400, "Invalid value for 'messages'.", "invalid_value", param="messages")
    messages = {
        "401": ("Incorrect API key provided.", "invalid_api_key"),
        "403": ("Country, region, or territory not supported.", "unsupported_country"),
        "404": ("The model does not exist.", "model_not_found"),
        "429": ("Rate limit reached.", "rate_limit_exceeded"),
    }
    message, code = messages.get(kind, ("The server had an error.", None))
    return error_response(int(kind), message, code, retry_after=retry_after)
