"""What a door answers when it refuses. The code is stable and part of the contract; the sentence is for people."""

from __future__ import annotations

from typing import ClassVar


class ChatError(Exception):
    code: ClassVar[str] = "invalid"
    status: ClassVar[int] = 400

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields


class InvalidError(ChatError):
    pass


class TooLongError(ChatError):
    code = "too_long"
    status = 413


class NotFoundError(ChatError):
    """Also what a stranger is told: another person's id does not exist for him."""

    code = "not_found"
    status = 404


class ForbiddenError(ChatError):
    code = "forbidden"
    status = 403


class RateLimitedError(ChatError):
    code = "rate_limited"
    status = 429

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message, retry_after=retry_after)


class QuotaExceededError(ChatError):
    code = "quota_exceeded"
    status = 403


class ModelUnavailableError(ChatError):
    """Unknown, not permitted or down."""

    code = "model_unavailable"
    status = 503


class BusyError(ChatError):
    code = "busy"
    status = 409
