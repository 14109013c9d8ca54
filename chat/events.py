"""The wire contract of `/ws/chat/`: one strict class per frame, parsed and printed here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, Self
from uuid import UUID

from chat.errors import ChatError, InvalidError
from config.app_settings import get_settings

REQUEST_ID_LIMIT = 64
MAX_STOP_TEXTS = 4


# --- fields -----------------------------------------------------------------------------------------------------------


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidError(f"{name} must be a text.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidError(f"{name} contains half a character (a lone surrogate).") from None
    if "\0" in value:
        raise InvalidError(f"{name} contains a NUL character.")
    return value


def _id(value: Any, name: str) -> UUID:
    try:
        return UUID(_text(value, name))
    except ValueError:
        raise InvalidError(f"{name} must be an id.") from None


def _optional(parse: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    return lambda value, name: None if value is None else parse(value, name)


def _number(low: float, high: float, *, above: bool = False) -> Callable[[Any, str], float]:
    def parse(value: Any, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidError(f"{name} must be a number.")
        if not low <= value <= high or (above and value == low):  # also refuses NaN
            raise InvalidError(f"{name} must be {'above' if above else 'from'} {low:g} {'up ' * above}to {high:g}.")
        return float(value)

    return parse


def _integer(low: int, high: int) -> Callable[[Any, str], int]:
    def parse(value: Any, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidError(f"{name} must be a whole number.")
        if not low <= value <= high:
            raise InvalidError(f"{name} must be from {low} to {high}.")
        return value

    return parse


def _printable(name: str) -> str:
    """A name somebody made up, short and in characters that every socket can send: half a surrogate is none."""
    return ascii(name[:50])[1:-1]


def _stop(value: Any, name: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > MAX_STOP_TEXTS:
        raise InvalidError(f"{name} must be a list of at most {MAX_STOP_TEXTS} texts.")
    if not all(isinstance(text, str) and text for text in texts):
        raise InvalidError(f"{name} must hold texts that are not empty.")
    return [_text(text, name) for text in texts]


def _system_prompt(value: Any, name: str) -> str:
    limit = get_settings().max_message_chars
    if len(_text(value, name)) > limit:
        raise InvalidError(f"{name} may have at most {limit} characters.")
    return value


OPTIONS: dict[str, Callable[[Any, str], Any]] = {
    "temperature": _number(0, 2),
    "top_p": _number(0, 1, above=True),
    "max_new_tokens": _integer(1, 1_000_000),
    "seed": _integer(-(2**63), 2**63 - 1),
    "stop": _stop,
    "system_prompt": _system_prompt,
}


def parse_options(value: Any, name: str = "options") -> dict[str, Any]:
    """Checked options of a reply; a null option is as if it were not there. Out of range is refused, never clamped."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidError(f"{name} must be an object.")
    if unknown := value.keys() - OPTIONS.keys():
        raise InvalidError(f"{name} has an unknown field: {_printable(min(unknown))}.")
    return {key: OPTIONS[key](item, f"{name}.{key}") for key, item in value.items() if item is not None}


def _after(value: Any, name: str) -> dict[UUID, int]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidError(f"{name} must be an object.")
    whole = _integer(0, 2**31)
    return {_id(key, f"{name} key"): whole(item, f"{name} value") for key, item in value.items()}


# --- client to server -------------------------------------------------------------------------------------------------

REQUIRED = object()


@dataclass(frozen=True, kw_only=True)
class ClientFrame:
    """A subclass names its fields with how each is parsed and what it is when left out."""

    type: ClassVar[str]
    parsers: ClassVar[dict[str, tuple[Callable[[Any, str], Any], Any]]]
    request_id: str | None = None

    @classmethod
    def parse(cls, data: dict[str, Any], request_id: str | None) -> Self:
        if unknown := data.keys() - cls.parsers.keys() - {"type", "request_id"}:
            raise InvalidError(f"{cls.type} has an unknown field: {_printable(min(unknown))}.")
        values = {}
        for name, (parser, default) in cls.parsers.items():
            if name in data:
                values[name] = parser(data[name], name)
            elif default is REQUIRED:
                raise InvalidError(f"{cls.type} needs the field {name}.")
            else:
                values[name] = default() if callable(default) else default
        return cls(request_id=request_id, **values)


@dataclass(frozen=True, kw_only=True)
class MessageCreate(ClientFrame):
    type = "message.create"
    parsers = {
        "content": (_text, REQUIRED),
        "conversation_id": (_optional(_id), None),
        "parent_id": (_optional(_id), None),
        "edit_of": (_optional(_id), None),
        "model": (_optional(_text), None),
        "options": (parse_options, dict),
    }
    content: str
    conversation_id: UUID | None
    parent_id: UUID | None
    edit_of: UUID | None
    model: str | None
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReplyCreate(ClientFrame):
    type = "reply.create"
    parsers = {
        "conversation_id": (_id, REQUIRED),
        "parent_id": (_id, REQUIRED),
        "model": (_optional(_text), None),
        "options": (parse_options, dict),
    }
    conversation_id: UUID
    parent_id: UUID
    model: str | None
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReplyContinue(ClientFrame):
    type = "reply.continue"
    parsers = {"message_id": (_id, REQUIRED)}
    message_id: UUID


@dataclass(frozen=True, kw_only=True)
class ReplyCancel(ClientFrame):
    type = "reply.cancel"
    parsers = {"message_id": (_id, REQUIRED)}
    message_id: UUID


@dataclass(frozen=True, kw_only=True)
class ConversationSelect(ClientFrame):
    type = "conversation.select"
    parsers = {"conversation_id": (_id, REQUIRED), "message_id": (_id, REQUIRED)}
    conversation_id: UUID
    message_id: UUID


@dataclass(frozen=True, kw_only=True)
class ConversationSubscribe(ClientFrame):
    type = "conversation.subscribe"
    parsers = {"conversation_id": (_id, REQUIRED), "after": (_after, dict)}
    conversation_id: UUID
    after: dict[UUID, int]


@dataclass(frozen=True, kw_only=True)
class ConversationUnsubscribe(ClientFrame):
    type = "conversation.unsubscribe"
    parsers = {"conversation_id": (_id, REQUIRED)}
    conversation_id: UUID


@dataclass(frozen=True, kw_only=True)
class Ping(ClientFrame):
    type = "ping"
    parsers = {}


CLIENT_FRAMES: dict[str, type[ClientFrame]] = {
    frame.type: frame
    for frame in (
        MessageCreate,
        ReplyCreate,
        ReplyContinue,
        ReplyCancel,
        ConversationSelect,
        ConversationSubscribe,
        ConversationUnsubscribe,
        Ping,
    )
}


class RefusedFrameError(InvalidError):
    """A frame that could not be understood, with its request id as far as it could be read."""

    def __init__(self, message: str, request_id: str | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id


def parse_client_frame(text: str) -> ClientFrame:
    """Raises RefusedFrameError: not JSON, not an object, an unknown type, a missing, unknown or wrong field."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise RefusedFrameError("The frame is not valid JSON.") from None
    if not isinstance(data, dict):
        raise RefusedFrameError("A frame must be a JSON object.")
    request_id = data.get("request_id")
    try:
        if request_id is not None and len(_text(request_id, "request_id")) > REQUEST_ID_LIMIT:
            raise InvalidError(f"request_id may have at most {REQUEST_ID_LIMIT} characters.")
    except InvalidError as error:
        raise RefusedFrameError(error.message) from None
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in CLIENT_FRAMES:
        raise RefusedFrameError("The frame's type is missing or unknown.", request_id)
    try:
        return CLIENT_FRAMES[kind].parse(data, request_id)
    except InvalidError as error:
        raise RefusedFrameError(error.message, request_id) from None


# --- server to client -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ServerEvent:
    """Fields that are None because they do not apply are left out of the frame."""

    type: ClassVar[str]
    optional: ClassVar[frozenset[str]] = frozenset({"request_id"})
    request_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        frame: dict[str, Any] = {"type": self.type}
        for name in _field_names(type(self)):
            value = getattr(self, name)
            if value is not None or name not in self.optional:
                frame[name] = value
        return frame


@cache
def _field_names(event: type[ServerEvent]) -> tuple[str, ...]:
    """Asked once a class: every delta is an event."""
    return tuple(field.name for field in fields(event))


@dataclass(frozen=True, kw_only=True)
class ConversationCreated(ServerEvent):
    type = "conversation.created"
    conversation: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ConversationUpdated(ServerEvent):
    type = "conversation.updated"
    conversation: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ConversationDeleted(ServerEvent):
    type = "conversation.deleted"
    conversation: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ConversationSubscribed(ServerEvent):
    type = "conversation.subscribed"
    conversation_id: str
    running: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class MessageCreated(ServerEvent):
    type = "message.created"
    message: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReplyStarted(ServerEvent):
    type = "reply.started"
    message: dict[str, Any]
    conversation_id: str


@dataclass(frozen=True, kw_only=True)
class ReplyDelta(ServerEvent):
    """Text that is new, or new thinking text; `tail` comes with the first delta of a new unfinished block."""

    type = "reply.delta"
    optional = frozenset({"request_id", "text", "reasoning", "tail"})
    message_id: str
    conversation_id: str
    sequence_number: int
    text: str | None = None
    reasoning: str | None = None
    tail: dict[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class ReplyBlock(ServerEvent):
    type = "reply.block"
    message_id: str
    conversation_id: str
    index: int
    html: str
    length: int


@dataclass(frozen=True, kw_only=True)
class ReplyEnded(ServerEvent):
    """`status` is the end state of the message: complete, stopped, failed or interrupted."""

    message: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        status = self.message["status"]
        frame = {"type": f"reply.{'completed' if status == 'complete' else status}", "message": self.message}
        return frame if self.request_id is None else frame | {"request_id": self.request_id}


@dataclass(frozen=True, kw_only=True)
class MessageFeedback(ServerEvent):
    """What the owner thinks of a reply has changed; what is None was taken back, or never said."""

    type = "message.feedback"
    message_id: str
    conversation_id: str
    feedback: dict[str, Any] | None
    correction: dict[str, str] | None
    is_chosen: bool


@dataclass(frozen=True, kw_only=True)
class Pong(ServerEvent):
    type = "pong"


@dataclass(frozen=True, kw_only=True)
class ErrorFrame(ServerEvent):
    type = "error"
    optional = frozenset({"request_id", "retry_after"})
    code: str
    message: str
    retry_after: float | None = None

    @classmethod
    def of(cls, error: ChatError, request_id: str | None) -> Self:
        retry_after = error.fields.get("retry_after")
        return cls(code=error.code, message=error.message, retry_after=retry_after, request_id=request_id)  # type: ignore[arg-type]


def encode(event: ServerEvent | dict[str, Any]) -> str:
    """The frame as it goes on the wire."""
    data = event if isinstance(event, dict) else event.to_dict()
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
