"""The one example type behind every file format: chat, preference pair, KTO row, classification row, plain text.

Their dicts are the common published shapes, so an export is read back by these same readers and by other tools.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar, Literal

Role = Literal["system", "user", "assistant"]
Kind = Literal["chat", "preference", "kto", "classification", "text"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str
    weight: int = 1  # 0: an assistant message the loss leaves out; other roles are never trained

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.weight == 0:
            data["weight"] = 0
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Message:
        return cls(data["role"], data["content"], data.get("weight", 1))


Messages = tuple[Message, ...]


def messages_to_dicts(messages: Messages) -> list[dict[str, Any]]:
    return [message.to_dict() for message in messages]


def messages_from_dicts(data: Iterable[Mapping[str, Any]]) -> Messages:
    return tuple(Message.from_dict(item) for item in data)


class _Hashed:
    __slots__ = ()
    kind: ClassVar[Kind]

    def to_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    def content_hash(self) -> str:
        """SHA-256 of kind and content: equal for exact duplicates, the same in every process and version."""
        canonical = json.dumps([self.kind, self.to_dict()], sort_keys=True, separators=(",", ":"))
        return sha256(canonical.encode("ascii")).hexdigest()


@dataclass(frozen=True, slots=True)
class ChatExample(_Hashed):
    messages: Messages
    kind: ClassVar[Kind] = "chat"

    def to_dict(self) -> dict[str, Any]:
        return {"messages": messages_to_dicts(self.messages)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ChatExample:
        return cls(messages_from_dicts(data["messages"]))


@dataclass(frozen=True, slots=True)
class PreferenceExample(_Hashed):
    prompt: Messages
    chosen: Messages
    rejected: Messages
    kind: ClassVar[Kind] = "preference"

    def to_dict(self) -> dict[str, Any]:
        return {name: messages_to_dicts(getattr(self, name)) for name in ("prompt", "chosen", "rejected")}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PreferenceExample:
        return cls(*(messages_from_dicts(data[name]) for name in ("prompt", "chosen", "rejected")))


@dataclass(frozen=True, slots=True)
class KtoExample(_Hashed):
    prompt: Messages
    completion: Messages
    label: bool  # True: desirable
    kind: ClassVar[Kind] = "kto"

    def to_dict(self) -> dict[str, Any]:
        prompt, completion = messages_to_dicts(self.prompt), messages_to_dicts(self.completion)
        return {"prompt": prompt, "completion": completion, "label": self.label}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> KtoExample:
        return cls(messages_from_dicts(data["prompt"]), messages_from_dicts(data["completion"]), data["label"])


@dataclass(frozen=True, slots=True)
class ClassificationExample(_Hashed):
    text: str
    label: str
    kind: ClassVar[Kind] = "classification"

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text, "label": self.label}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ClassificationExample:
        return cls(data["text"], data["label"])


@dataclass(frozen=True, slots=True)
class TextExample(_Hashed):
    text: str
    kind: ClassVar[Kind] = "text"

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TextExample:
        return cls(data["text"])


Example = ChatExample | PreferenceExample | KtoExample | ClassificationExample | TextExample

EXAMPLE_TYPES: dict[Kind, type[Example]] = {
    "chat": ChatExample,
    "preference": PreferenceExample,
    "kto": KtoExample,
    "classification": ClassificationExample,
    "text": TextExample,
}


def example_from_dict(kind: Kind, data: Mapping[str, Any]) -> Example:
    """The example whose `to_dict` gave `data`. Trusts it: what a person edited goes through `check_example`."""
    return EXAMPLE_TYPES[kind].from_dict(data)


def example_texts(example: Example) -> list[str]:
    """Every text of an example, in reading order: to measure, to scan, to search."""
    match example:
        case ChatExample(messages):
            return [message.content for message in messages]
        case PreferenceExample(prompt, chosen, rejected):
            return [message.content for message in (*prompt, *chosen, *rejected)]
        case KtoExample(prompt, completion):
            return [message.content for message in (*prompt, *completion)]
        case ClassificationExample(text) | TextExample(text):
            return [text]


def replace_texts(example: Example, texts: Iterable[str]) -> Example:
    """The same example with other texts, given in the order of `example_texts`."""
    source = iter(texts)

    def renew(messages: Messages) -> Messages:
        return tuple(Message(message.role, next(source), message.weight) for message in messages)

    match example:
        case ChatExample(messages):
            return ChatExample(renew(messages))
        case PreferenceExample(prompt, chosen, rejected):
            return PreferenceExample(renew(prompt), renew(chosen), renew(rejected))
        case KtoExample(prompt, completion, label):
            return KtoExample(renew(prompt), renew(completion), label)
        case ClassificationExample(_, label):
            return ClassificationExample(next(source), label)
        case TextExample():
            return TextExample(next(source))
