"""The wire contract of `/ws/chat/`: one strict class per frame, parsed and printed here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, Self
from uuid import UUID

from chat.errors import ChatError, InvalidError
from chat.frame_fields import optional, parse_after, parse_id, parse_options, parse_text, printable

REQUEST_ID_LIMIT = 64


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
            raise InvalidError(f"{cls.type} has an unknown field: {printable(min(unknown))}.")
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
        "content": (parse_text, REQUIRED),
        "conversation_id": (optional(parse_id), None),
        "parent_id": (optional(parse_id), None),
        "edit_of": (optional(parse_id), None),
        "model": (optional(parse_text), None),
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
        "conversation_id": (parse_id, REQUIRED),
        "parent_id": (parse_id, REQUIRED),
        "model": (optional(parse_text), None),
        "options": (parse_options, dict),
    }
    conversation_id: UUID
    parent_id: UUID
    model: str | None
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReplyContinue(ClientFrame):
    type = "reply.continue"
    parsers = {"message_id": (parse_id, REQUIRED)}
    message_id: UUID


@dataclass(frozen=True, kw_only=True)
class ReplyCancel(ClientFrame):
    type = "reply.cancel"
    parsers = {"message_id": (parse_id, REQUIRED)}
    message_id: UUID


@dataclass(frozen=True, kw_only=True)
class ConversationSelect(ClientFrame):
    type = "conversation.select"
    parsers = {"conversation_id": (parse_id, REQUIRED), "message_id": (parse_id, REQUIRED)}
    conversation_id: UUID
    message_id: UUID


@dataclass(frozen=True, kw_only=True)
class ConversationSubscribe(ClientFrame):
    type = "conversation.subscribe"
    parsers = {"conversation_id": (parse_id, REQUIRED), "after": (parse_after, dict)}
    conversation_id: UUID
    after: dict[UUID, int]


@dataclass(frozen=True, kw_only=True)
class ConversationUnsubscribe(ClientFrame):
    type = "conversation.unsubscribe"
    parsers = {"conversation_id": (parse_id, REQUIRED)}
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


def parse_client_frame(text: str, frames: Mapping[str, type[ClientFrame]] | None = None) -> ClientFrame:
    """`frames` are those of another socket than the chat's.

    Raises RefusedFrameError: not JSON, not an object, an unknown type, a missing, unknown or wrong field.
    """
    frames = CLIENT_FRAMES if frames is None else frames
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise RefusedFrameError("The frame is not valid JSON.") from None
    if not isinstance(data, dict):
        raise RefusedFrameError("A frame must be a JSON object.")
    request_id = data.get("request_id")
    try:
        if request_id is not None and len(parse_text(request_id, "request_id")) > REQUEST_ID_LIMIT:
            raise InvalidError(f"request_id may have at most {REQUEST_ID_LIMIT} characters.")
    except InvalidError as error:
        raise RefusedFrameError(error.message) from None
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in frames:
        raise RefusedFrameError("The frame's type is missing or unknown.", request_id)
    try:
        return frames[kind].parse(data, request_id)
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
    current_leaf_id: str | None = None  # tells a page whether it shows what there is by now
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
