"""The small interfaces every provider speaks, and the errors they raise. Imports neither Django nor an SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True)
class PromptMessage:
    role: Role
    content: str


@dataclass(frozen=True, kw_only=True)
class ReplyOptions:
    max_new_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class LabelScore:
    label: str
    score: float


@dataclass(frozen=True)
class TextDelta:
    text: str


@dataclass(frozen=True)
class ReasoningDelta:
    """Thinking text: shown apart, never part of the content."""

    text: str


@dataclass(frozen=True)
class Labels:
    """What a classifier found, best first. Only replies of classification and masked-token models carry it."""

    labels: tuple[LabelScore, ...]


@dataclass(frozen=True)
class Finished:
    finish_reason: FinishReason
    usage: Usage | None = None


@dataclass(frozen=True)
class UsageSoFar:
    """From providers that count as they go: what a reply that is cut short has used."""

    usage: Usage


ReplyPart = TextDelta | ReasoningDelta | Labels | UsageSoFar | Finished


class ChatModel(Protocol):
    def stream(self, messages: Sequence[PromptMessage], *, options: ReplyOptions) -> AsyncIterator[ReplyPart]:
        """Yield what the model writes as it writes it, and exactly one `Finished` at the end.

        A last message of role assistant is a prefix to continue. Closing the iterator ends the upstream request.
        Raises a `ModelHubError`; a stream cut before its finish reason raises `ProviderBadResponseError`.
        """
        ...

    async def count_tokens(self, messages: Sequence[PromptMessage]) -> int | None:
        """The prompt's length as the model counts it, or None where the provider cannot tell."""
        ...

    async def check(self) -> None:
        """One cheap call that proves the connection and the model. Raises a `ModelHubError`."""
        ...


class TextClassifier(Protocol):
    async def classify(self, texts: Sequence[str]) -> list[list[LabelScore]]:
        """For each text its labels with their scores, best first."""
        ...

    async def check(self) -> None: ...


class MaskFiller(Protocol):
    async def fill_mask(self, text: str, *, top_k: int = 5) -> list[list[LabelScore]]:
        """For each `[MASK]` in the text the best candidate tokens with their probabilities."""
        ...

    async def check(self) -> None: ...


class ModelHubError(Exception):
    """Something about a model or its provider. `code` is stable; the sentence may change."""

    code = "provider_bad_response"
    retryable = False

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class UnknownModelError(ModelHubError):
    """No such model, or not for this person."""

    code = "model_unavailable"


class ModelNotReadyError(ModelHubError):
    """Known, but it cannot answer: no weights yet, missing head, still loading, refused to load."""

    code = "model_not_ready"


class ContextLengthExceededError(ModelHubError):
    code = "context_length_exceeded"

    def __init__(self, message: str, *, context_window: int | None = None, prompt_tokens: int | None = None) -> None:
        super().__init__(message)
        self.context_window = context_window
        self.prompt_tokens = prompt_tokens


class ProviderError(ModelHubError):
    """The provider failed."""

    def __init__(self, message: str, *, detail: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, detail=detail)
        self.retry_after = retry_after


class ProviderAuthenticationError(ProviderError):
    code = "provider_auth"


class ProviderNotFoundError(ProviderError):
    code = "provider_not_found"


class ProviderRateLimitError(ProviderError):
    code = "provider_rate_limited"
    retryable = True


class ProviderTimeoutError(ProviderError):
    code = "provider_timeout"
    retryable = True


class ProviderUnavailableError(ProviderError):
    code = "provider_unavailable"
    retryable = True


class ProviderUnreachableError(ProviderUnavailableError):
    """Nobody listens at its address."""


class ProviderBadResponseError(ProviderError):
    """Garbage, HTML, a refused parameter, or a stream that ended without saying why."""

    code = "provider_bad_response"
    retryable = True


class ProviderRefusedError(ProviderBadResponseError):
    """The provider refused this one request, for what is in it: no sign that the model is down."""
