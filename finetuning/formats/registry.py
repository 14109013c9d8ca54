"""The row formats by name, each a small module imported on first use, and what such a module declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from finetuning.formats.examples import Example, Kind
from finetuning.formats.problems import Problem, RowError

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a format, under the name its reader uses; `synonyms` are other people's names, in lower case."""

    name: str
    required: bool = True
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RowFormat:
    name: str
    title: str
    kind: Kind
    fields: tuple[Field, ...]
    recognise: Callable[[Row], float]  # 0 to 1: how surely a row under our field names has this format
    read: Callable[[Row, list[Problem]], Example]  # raises RowError; adds its warnings to the list


ROW_FORMATS: dict[str, str] = {
    name: f"finetuning.formats.rows.{name}"
    for name in (
        "chat_messages",
        "sharegpt",
        "openai_preference",
        "preference",
        "kto",
        "prompt_completion",
        "alpaca",
        "classification",
        "text",
    )
}

CANONICAL_FORMATS: dict[Kind, str] = {
    "chat": "chat_messages",
    "preference": "preference",
    "kto": "kto",
    "classification": "classification",
    "text": "text",
}


class UnknownFormatError(LookupError):
    pass


@cache
def get_row_format(name: str) -> RowFormat:
    if name not in ROW_FORMATS:
        raise UnknownFormatError(f"There is no format named {name!r}.")
    return import_module(ROW_FORMATS[name]).FORMAT


def list_row_formats() -> list[RowFormat]:
    return [get_row_format(name) for name in ROW_FORMATS]


def check_example(kind: Kind, data: Row) -> tuple[Example | None, tuple[Problem, ...]]:
    """What a person edited, read as if it had been imported: the example, or None and why not."""
    warnings: list[Problem] = []
    try:
        example = get_row_format(CANONICAL_FORMATS[kind]).read(data, warnings)
    except RowError as error:
        return None, (*warnings, error.to_problem())
    return example, tuple(warnings)
