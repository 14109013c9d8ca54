"""What the engine refuses or fails with, in OpenAI's error shape. The code is stable; the sentence may change."""

from __future__ import annotations

from typing import Any


class EngineError(Exception):
    status = 500
    code = "engine_error"
    kind = "server_error"
    retryable = False

    def __init__(self, message: str, *, param: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.details = details

    def to_dict(self) -> dict[str, Any]:
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": {**error, "retryable": self.retryable, **self.details}}

    def headers(self) -> dict[str, str]:
        """OpenAI's SDK retries by status unless told; we know better than the status does."""
        headers = {"x-should-retry": "true" if self.retryable else "false"}
        return {**headers, "Retry-After": "1"} if self.retryable else headers


class InvalidRequestError(EngineError):
    status = 400
    code = "invalid_value"
    kind = "invalid_request_error"


class UnsupportedParameterError(InvalidRequestError):
    code = "unsupported_parameter"


class WrongTaskError(InvalidRequestError):
    """A classifier was asked to chat, or the reverse."""

    code = "wrong_task"


class ContextLengthExceededError(InvalidRequestError):
    code = "context_length_exceeded"

    def __init__(self, *, context_window: int, prompt_tokens: int, param: str) -> None:
        message = (
            f"This model's maximum context length is {context_window} tokens. "
            f"However, your text resulted in {prompt_tokens} tokens. Please shorten it."
        )
        super().__init__(message, param=param, context_window=context_window, prompt_tokens=prompt_tokens)


class RequestTooLargeError(InvalidRequestError):
    status = 413
    code = "request_too_large"


class InvalidKeyError(EngineError):
    status = 401
    code = "invalid_api_key"
    kind = "authentication_error"


class UnknownPathError(EngineError):
    status = 404
    code = "unknown_path"
    kind = "invalid_request_error"


class ModelNotFoundError(EngineError):
    status = 404
    code = "model_not_found"
    kind = "invalid_request_error"


class ModelNotReadyError(EngineError):
    """Known, but it cannot answer: no weights, missing head, too large, refused to load, or no Hub to fetch it from."""

    status = 503
    code = "model_not_ready"


class EngineBusyError(EngineError):
    status = 503
    code = "engine_busy"
    retryable = True


class LoopDiedError(EngineError):
    """The batching loop ended under this request. It is being rebuilt; the same request can be sent again."""

    status = 503
    code = "engine_restarted"
    retryable = True


class EngineStoppingError(EngineError):
    status = 503
    code = "engine_stopping"
    retryable = True
