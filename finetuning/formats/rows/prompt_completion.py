"""Prompt and completion, each a text or a list of messages; only the completion is trained."""

from __future__ import annotations

from finetuning.formats.examples import ChatExample, Message
from finetuning.formats.problems import Problem
from finetuning.formats.registry import Field, Row, RowFormat
from finetuning.formats.turns import (
    check_conversation,
    check_prompt,
    get_optional_text,
    read_answer,
    read_prompt,
    refuse_tools_and_media,
)


def recognise(row: Row) -> float:
    return 1.0 if "prompt" in row and "completion" in row and "label" not in row else 0.0


def read(row: Row, warnings: list[Problem]) -> ChatExample:
    if len(row) > 2:
        refuse_tools_and_media(row)
    prompt = read_prompt(row.get("prompt"), "prompt", system=get_optional_text(row, "system"), warnings=warnings)
    completion = read_answer(row.get("completion"), "completion", warnings=warnings)
    untrained = [Message(m.role, m.content, 0) if m.role == "assistant" else m for m in check_prompt(prompt)]
    return ChatExample(check_conversation([*untrained, *completion], warnings))


FIELDS = (
    Field("prompt", synonyms=("question", "query", "user", "input")),
    Field("completion", synonyms=("response", "answer", "assistant", "reply", "output")),
    Field("system", required=False, synonyms=("system_prompt",)),
)
FORMAT = RowFormat("prompt_completion", "Prompt and completion", "chat", FIELDS, recognise, read)
