"""Alpaca: {"instruction", "input"?, "output", "system"?, "history"?: [[question, answer], ...]}."""

from __future__ import annotations

from finetuning.formats.examples import ChatExample, Message
from finetuning.formats.problems import Code, Problem, fail
from finetuning.formats.registry import Field, Row, RowFormat
from finetuning.formats.turns import (
    MAX_MESSAGES,
    check_conversation,
    get_optional_text,
    get_text,
    refuse_tools_and_media,
)


def recognise(row: Row) -> float:
    if "instruction" not in row or "output" not in row:
        return 0.0
    return 1.0 if "input" in row else 0.9


def read(row: Row, warnings: list[Problem]) -> ChatExample:
    """Instruction and input become one question; the answers of the history are trained too, as their authors meant."""
    if len(row) > 3:
        refuse_tools_and_media(row)
    instruction, given = get_text(row, "instruction"), get_optional_text(row, "input")
    messages = _read_history(row.get("history"))
    messages.append(Message("user", f"{instruction}\n\n{given}" if given else instruction))
    messages.append(Message("assistant", get_text(row, "output")))
    system = get_optional_text(row, "system")
    if system:
        messages.insert(0, Message("system", system))
    return ChatExample(check_conversation(messages, warnings))


def _read_history(history: object) -> list[Message]:
    if not history:
        return []
    if type(history) is not list or len(history) > MAX_MESSAGES // 2:
        fail(Code.NOT_MESSAGES, '"history" is not a list of question and answer pairs of a reasonable length.')
    messages = []
    for number, pair in enumerate(history, 1):
        if type(pair) is not list or len(pair) != 2:
            fail(Code.NOT_MESSAGES, f'Entry {number} of "history" is not a pair of question and answer.')
        question, answer = (get_text({"history": text}, "history") for text in pair)
        messages += [Message("user", question), Message("assistant", answer)]
    return messages


FIELDS = (
    Field("instruction"),
    Field("input", required=False, synonyms=("context",)),
    Field("output", synonyms=("response",)),
    Field("system", required=False, synonyms=("system_prompt",)),
    Field("history", required=False),
)
FORMAT = RowFormat("alpaca", "Alpaca instructions", "chat", FIELDS, recognise, read)
