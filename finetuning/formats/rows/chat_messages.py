"""Chat in OpenAI's shape: {"messages": [{"role", "content", "weight"?}]}."""

from __future__ import annotations

from finetuning.formats.examples import ChatExample
from finetuning.formats.problems import Problem
from finetuning.formats.registry import Field, Row, RowFormat
from finetuning.formats.turns import OPENAI_ROLES, check_conversation, read_messages, refuse_tools_and_media


def recognise(row: Row) -> float:
    messages = row.get("messages")
    if type(messages) is not list or "label" in row:
        return 0.0
    return 1.0 if messages and type(messages[0]) is dict and "role" in messages[0] else 0.3


def read(row: Row, warnings: list[Problem]) -> ChatExample:
    if len(row) > 1:
        refuse_tools_and_media(row)
    messages = read_messages(row.get("messages"), "messages", warnings=warnings, roles=OPENAI_ROLES)
    return ChatExample(check_conversation(messages, warnings))


FORMAT = RowFormat("chat_messages", "Chat messages", "chat", (Field("messages"),), recognise, read)
