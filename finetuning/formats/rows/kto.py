"""KTO rows: a prompt, a completion, and whether it was good; or whole `messages` with the label for the last answer.

A label is read from a closed list. Whatever else stands there is an error: a guess would mark bad answers good.
"""

from __future__ import annotations

from finetuning.formats.examples import KtoExample
from finetuning.formats.problems import Code, Problem, fail
from finetuning.formats.registry import Field, Row, RowFormat
from finetuning.formats.turns import (
    check_order,
    check_prompt,
    get_optional_text,
    read_answer,
    read_messages,
    read_prompt,
    refuse_tools_and_media,
)

GOOD = {
    "true",
    "1",
    "1.0",
    "yes",
    "good",
    "desirable",
    "up",
    "thumbs_up",
    "thumbs up",
    "thumbsup",
    "👍",
    "+1",
    "positive",
}
BAD = {"false", "0", "0.0", "-1", "no", "bad", "undesirable", "down", "thumbs_down", "thumbs down", "thumbsdown", "👎"}
BAD |= {"negative", "-1.0"}


def recognise(row: Row) -> float:
    if "label" not in row or not ("completion" in row or type(row.get("messages")) is list):
        return 0.0
    try:
        read_label(row["label"])
    except ValueError:
        return 0.4
    return 1.0


def read(row: Row, warnings: list[Problem]) -> KtoExample:
    refuse_tools_and_media(row)
    label = _get_label(row)
    if row.get("completion") is None and row.get("messages") is not None:
        messages = read_messages(row["messages"], "messages", warnings=warnings)
        if messages[-1:] and messages[-1].role != "assistant":
            fail(Code.NO_ASSISTANT_TURN, "The last message is not from the assistant, so the label rates nothing.")
        prompt, completion = messages[:-1], messages[-1:]
    else:
        prompt = read_prompt(row.get("prompt"), "prompt", system=get_optional_text(row, "system"), warnings=warnings)
        completion = read_answer(row.get("completion"), "completion", warnings=warnings)
    checked = check_prompt(prompt)
    check_order([*prompt, *completion])
    return KtoExample(checked, tuple(completion), label)


def read_label(value: object) -> bool:
    """Good or not. Raises ValueError for everything that is not on the lists; never takes a truthy value for good."""
    if type(value) is bool:
        return value
    word = str(value).strip().lower() if type(value) in (str, int, float) else ""
    word = word.replace("\U0001f3fb", "").replace("\ufe0f", "")  # a light skin tone or a variation selector
    if word in GOOD:
        return True
    if word in BAD:
        return False
    raise ValueError("not a label for good or bad")


def _get_label(row: Row) -> bool:
    value = row.get("label")
    if value is None or value == "":
        fail(Code.MISSING_LABEL, "The row has no label that says whether the answer was good.")
    try:
        return read_label(value)
    except ValueError:
        fail(Code.UNKNOWN_LABEL, "The label says neither good nor bad; true and false, 1 and 0 or thumbs are read.")


FIELDS = (
    Field("prompt", required=False, synonyms=("question", "instruction")),
    Field("completion", required=False, synonyms=("response", "answer", "output")),
    Field("messages", required=False, synonyms=("conversations",)),
    Field("label", synonyms=("kto_tag", "thumb", "thumbs", "is_good", "desirable")),
    Field("system", required=False, synonyms=("system_prompt",)),
)
FORMAT = RowFormat("kto", "KTO labels", "kto", FIELDS, recognise, read)
