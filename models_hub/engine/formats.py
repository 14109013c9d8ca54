"""The requests the engine understands, parsed and checked whole before anything reaches a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models_hub.engine.errors import InvalidRequestError, UnsupportedParameterError
from models_hub.engine.fields import Fields, check_text

MAX_STOPS = 4
MAX_STOP_CHARS = 256
MAX_TEXTS = 256
MAX_TOKENS = 10_000_000
ROLES = ("system", "user", "assistant")
DEFAULT_CONTINUE_TOKENS = 5


@dataclass(frozen=True)
class ChatMessage:
    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn. Temperature 0 takes the likeliest; a seed makes the draws repeatable."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    model: str
    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    max_tokens: int | None
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool


@dataclass(frozen=True, kw_only=True)
class TokenizeRequest:
    model: str
    messages: tuple[ChatMessage, ...]


@dataclass(frozen=True, kw_only=True)
class ClassifyRequest:
    model: str
    texts: tuple[str, ...]
    top_k: int | None
    truncate: bool


@dataclass(frozen=True, kw_only=True)
class FillMaskRequest:
    model: str
    text: str
    top_k: int
    continue_tokens: int


SAMPLING_FIELDS = ("temperature", "top_p", "seed", "max_tokens", "max_completion_tokens", "stop", "n")
CHAT_FIELDS = ("model", "messages", "stream", "stream_options", *SAMPLING_FIELDS)


def parse_chat(data: dict[str, Any]) -> ChatRequest:
    fields = Fields(data, known=CHAT_FIELDS)
    if fields.raw("n") not in (None, 1):
        raise UnsupportedParameterError("This engine answers once: n must be 1.", param="n")
    stream = fields.flag("stream")
    return ChatRequest(
        model=fields.text("model"),
        messages=parse_messages(fields.raw("messages")),
        sampling=_parse_sampling(fields),
        max_tokens=_parse_max_tokens(fields),
        stop=_parse_stop(fields),
        stream=stream,
        include_usage=_parse_include_usage(fields, stream=stream),
    )


def parse_tokenize(data: dict[str, Any]) -> TokenizeRequest:
    fields = Fields(data, known=("model", "messages"))
    return TokenizeRequest(model=fields.text("model"), messages=parse_messages(fields.raw("messages")))


def parse_classify(data: dict[str, Any]) -> ClassifyRequest:
    fields = Fields(data, known=("model", "input", "top_k", "truncate"))
    texts = fields.texts("input", maximum=MAX_TEXTS)
    if not texts:
        raise InvalidRequestError("input must hold at least one text.", param="input")
    return ClassifyRequest(
        model=fields.text("model"),
        texts=tuple(texts),
        top_k=fields.whole("top_k", 1, 1_000_000),
        truncate=fields.flag("truncate"),
    )


def parse_fill_mask(data: dict[str, Any]) -> FillMaskRequest:
    fields = Fields(data, known=("model", "input", "top_k", "continue_tokens"))
    texts = fields.texts("input", maximum=1)
    if not texts:
        raise InvalidRequestError("input must be a text.", param="input")
    continue_tokens = fields.whole("continue_tokens", 1, 64)
    return FillMaskRequest(
        model=fields.text("model"),
        text=texts[0],
        top_k=fields.whole("top_k", 1, 100) or 5,
        continue_tokens=continue_tokens or DEFAULT_CONTINUE_TOKENS,
    )


def parse_messages(value: Any) -> tuple[ChatMessage, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidRequestError("messages must be a list with at least one message.", param="messages")
    return tuple(_parse_message(item, f"messages[{index}]") for index, item in enumerate(value))


def _parse_message(value: Any, name: str) -> ChatMessage:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{name} must be an object with role and content.", param=name)
    fields = Fields(value, known=("role", "content"), prefix=f"{name}.")
    role = fields.text("role")
    if role not in ROLES:
        raise InvalidRequestError(f"{name}.role must be one of {', '.join(ROLES)}.", param=f"{name}.role")
    return ChatMessage(role, _parse_content(fields, name))


def _parse_content(fields: Fields, name: str) -> str:
    """A text, or OpenAI's list of parts as long as all of them are texts."""
    parts = fields.raw("content")
    if not isinstance(parts, list):
        return fields.text("content")
    texts = []
    for index, part in enumerate(parts):
        param = f"{name}.content[{index}]"
        if not isinstance(part, dict) or part.get("type") != "text":
            raise UnsupportedParameterError("This engine reads text only.", param=param)
        texts.append(check_text(part.get("text"), f"{param}.text"))
    return "".join(texts)


def _parse_sampling(fields: Fields) -> Sampling:
    top_p = fields.decimal("top_p", 1.0, 0.0, 1.0)
    if top_p == 0.0:
        raise InvalidRequestError("top_p must be above 0 and at most 1.", param="top_p")
    return Sampling(
        temperature=fields.decimal("temperature", 1.0, 0.0, 2.0),
        top_p=top_p,
        seed=fields.whole("seed", -(2**63), 2**63 - 1),
    )


def _parse_max_tokens(fields: Fields) -> int | None:
    new = fields.whole("max_completion_tokens", 1, MAX_TOKENS)
    old = fields.whole("max_tokens", 1, MAX_TOKENS)
    if new is not None and old is not None and new != old:
        message = "max_tokens and max_completion_tokens differ; send one of them."
        raise InvalidRequestError(message, param="max_tokens")
    return new if new is not None else old


def _parse_stop(fields: Fields) -> tuple[str, ...]:
    stops = fields.texts("stop", maximum=MAX_STOPS)
    if not all(0 < len(stop) <= MAX_STOP_CHARS for stop in stops):
        message = f"Each text in stop must have 1 to {MAX_STOP_CHARS} characters."
        raise InvalidRequestError(message, param="stop")
    return tuple(stops)


def _parse_include_usage(fields: Fields, *, stream: bool) -> bool:
    if not fields.has("stream_options"):
        return False
    options = fields.raw("stream_options")
    if not stream or not isinstance(options, dict):
        message = "stream_options must be an object, and goes with stream=true only."
        raise InvalidRequestError(message, param="stream_options")
    return Fields(options, known=("include_usage",), prefix="stream_options.").flag("include_usage")
