"""A text and its label. Labels are words: 1 and "1" are the same label, and nothing is read into them."""

from __future__ import annotations

from finetuning.formats.examples import ClassificationExample
from finetuning.formats.problems import Code, Problem, fail
from finetuning.formats.registry import Field, Row, RowFormat
from finetuning.formats.turns import check_text, get_text

MAX_LABEL_LENGTH = 200


def recognise(row: Row) -> float:
    return 0.9 if type(row.get("text")) is str and type(row.get("label")) in (str, int, bool) else 0.0


def read(row: Row, warnings: list[Problem]) -> ClassificationExample:
    return ClassificationExample(get_text(row, "text"), _get_label(row))


def _get_label(row: Row) -> str:
    value = row.get("label")
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int:
        return _bounded(str(value))
    if value is None:
        fail(Code.MISSING_LABEL, "The row has no label.")
    label = check_text(value, "The label").strip()
    if not label:
        fail(Code.MISSING_LABEL, "The row has no label.")
    return _bounded(label)


def _bounded(label: str) -> str:
    if len(label) > MAX_LABEL_LENGTH:
        fail(Code.UNKNOWN_LABEL, f"The label is longer than {MAX_LABEL_LENGTH} characters; is it the right column?")
    return label


TEXT_NAMES = ("sentence", "content", "review", "comment", "message", "utterance", "tweet", "query")
FIELDS = (
    Field("text", synonyms=TEXT_NAMES),
    Field("label", synonyms=("class", "category", "sentiment", "target", "intent", "labels")),
)
FORMAT = RowFormat("classification", "Text and label", "classification", FIELDS, recognise, read)
