"""JSON lines: one object a line; empty lines are passed over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from finetuning.formats.containers.lines import decode_line, split_lines
from finetuning.formats.problems import Code, Limits, Problem

RawRow = tuple[int, dict[str, Any] | Problem]
decode = json.JSONDecoder().decode


def read_json_lines(chunks: Iterator[bytes], limits: Limits) -> Iterator[RawRow]:
    for number, line in split_lines(chunks, max_bytes=limits.max_row_bytes):
        if isinstance(line, Problem):
            yield number, line
        elif line and not line.isspace():
            text = decode_line(line)
            yield number, text if isinstance(text, Problem) else parse_object(text, limits)


def parse_object(text: str, limits: Limits) -> dict[str, Any] | Problem:
    """One JSON object, or what is wrong with it."""
    try:
        return check_object(decode(text), limits)
    except (ValueError, RecursionError) as error:
        return describe(error)


def check_object(value: object, limits: Limits) -> dict[str, Any] | Problem:
    if type(value) is not dict:
        return Problem(Code.NOT_AN_OBJECT, "The row is not a JSON object.")
    if len(value) > limits.max_columns:
        return Problem(
            Code.TOO_MANY_COLUMNS, f"The row has {len(value)} fields; at most {limits.max_columns} are read."
        )
    return value


def describe(error: ValueError | RecursionError) -> Problem:
    if isinstance(error, RecursionError):
        return Problem(Code.TOO_DEEP, "The row is nested too deep to be read.")
    if isinstance(error, json.JSONDecodeError):
        return Problem(Code.BROKEN_JSON, f"The row is broken JSON: {error.msg} at character {error.pos + 1}.")
    return Problem(Code.BROKEN_JSON, "The row holds a number with too many digits.")
