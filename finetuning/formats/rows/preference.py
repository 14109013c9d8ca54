"""Preference pairs: a prompt with a chosen and a rejected answer, each a text, a message or a list of messages.

Two sides that begin with the user are whole conversations, and what they share at the start is the prompt.
"""

from __future__ import annotations

from finetuning.formats.examples import Message, PreferenceExample
from finetuning.formats.problems import Code, Problem, fail
from finetuning.formats.registry import Field, Row, RowFormat
from finetuning.formats.turns import (
    check_order,
    check_prompt,
    get_optional_text,
    read_answer,
    read_prompt,
    refuse_tools_and_media,
)


def recognise(row: Row) -> float:
    if "chosen" not in row or "rejected" not in row:
        return 0.0
    return 1.0 if "prompt" in row else 0.7


def read(row: Row, warnings: list[Problem]) -> PreferenceExample:
    refuse_tools_and_media(row)
    chosen = read_answer(row.get("chosen"), "chosen", warnings=warnings)
    rejected = read_answer(row.get("rejected"), "rejected", warnings=warnings)
    if (
        chosen[0].role != "assistant" and rejected[0].role != "assistant"
    ):  # a prompt beside them only repeats their start
        prompt, chosen, rejected = split_common_start(chosen, rejected)
    else:
        prompt = read_prompt(row.get("prompt"), "prompt", system=get_optional_text(row, "system"), warnings=warnings)
    return make_pair(prompt, chosen, rejected)


def split_common_start(
    chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """Two conversations parted after the last question they share."""
    shared = 0
    for left, right in zip(chosen, rejected, strict=False):
        if left != right:
            break
        shared += 1
    if shared == len(chosen) == len(rejected):
        fail(Code.EQUAL_SIDES, "The chosen and the rejected side are equal.")
    while shared and chosen[shared - 1].role != "user":
        shared -= 1
    return chosen[:shared], chosen[shared:], rejected[shared:]


def make_pair(prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> PreferenceExample:
    checked = check_prompt(prompt)
    for answer in (chosen, rejected):
        check_order([*prompt, *answer])
    if _stripped(chosen) == _stripped(rejected):
        fail(Code.EQUAL_SIDES, "The chosen and the rejected answer are equal.")
    return PreferenceExample(checked, tuple(chosen), tuple(rejected))


def _stripped(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.content.strip()) for message in messages]


FIELDS = (
    Field("prompt", required=False, synonyms=("question", "instruction", "conversations", "messages")),
    Field("chosen", synonyms=("preferred", "chosen_response", "chosen_messages")),
    Field("rejected", synonyms=("dispreferred", "rejected_response", "rejected_messages")),
    Field("system", required=False, synonyms=("system_prompt",)),
)
FORMAT = RowFormat("preference", "Preference pairs", "preference", FIELDS, recognise, read)
