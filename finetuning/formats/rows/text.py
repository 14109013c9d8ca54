"""Plain texts, for masked-language training."""

from __future__ import annotations

from finetuning.formats.examples import TextExample
from finetuning.formats.problems import Problem
from finetuning.formats.registry import Field, Row, RowFormat
from finetuning.formats.turns import get_text


def recognise(row: Row) -> float:
    """Only where nothing else stands beside the text that another format could mean."""
    if type(row.get("text")) is not str:
        return 0.0
    return 0.8 if len(row) == 1 else 0.3


def read(row: Row, warnings: list[Problem]) -> TextExample:
    return TextExample(get_text(row, "text"))


FORMAT = RowFormat("text", "Plain text", "text", (Field("text", synonyms=("content", "sentence")),), recognise, read)
