"""ShareGPT: {"conversations": [{"from": "human" | "gpt" | "system", "value"}], "system"?}; tools are refused."""

from __future__ import annotations

from finetuning.formats.examples import ChatExample, Message
from finetuning.formats.problems import Problem
from finetuning.formats.registry import Field, Row, RowFormat
from finetuning.formats.turns import (
    check_conversation,
    get_optional_text,
    read_messages,
    refuse_tools_and_media,
)


def recognise(row: Row) -> float:
    turns = row.get("conversations")
    if type(turns) is not list or "chosen" in row or "label" in row:
        return 0.0
    return 1.0 if turns and type(turns[0]) is dict and ("from" in turns[0] or "role" in turns[0]) else 0.3


def read(row: Row, warnings: list[Problem]) -> ChatExample:
    if len(row) > 1:
        refuse_tools_and_media(row)
    messages = read_messages(row.get("conversations"), "conversations", warnings=warnings)
    system = get_optional_text(row, "system")
    if system and messages and messages[0].role != "system":
        messages.insert(0, Message("system", system))
    return ChatExample(check_conversation(messages, warnings))


FIELDS = (Field("conversations", synonyms=("conversation",)), Field("system", required=False))
FORMAT = RowFormat("sharegpt", "ShareGPT conversations", "chat", FIELDS, recognise, read)
