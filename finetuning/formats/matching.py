"""Which row formats the first rows of a file fit, directly or under other people's column names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from finetuning.formats.parsing import rename_columns
from finetuning.formats.registry import Row, RowFormat, list_row_formats

RENAMED = 0.8  # how much less sure we are when a column is known by a synonym only


@dataclass(frozen=True, slots=True)
class Match:
    format_name: str
    confidence: float
    reason: str
    columns: Mapping[str, str]


def match_formats(rows: list[Row]) -> list[Match]:
    """All that fit, best first; of equals the earlier one in the registry."""
    matches = [match for row_format in list_row_formats() if (match := _match(row_format, rows))]
    return sorted(matches, key=lambda match: -match.confidence)


def _match(row_format: RowFormat, rows: list[Row]) -> Match | None:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = find_columns(row_format, names)
    renamed = [rename_columns(row, columns) for row in rows] if columns else rows
    scores = [row_format.recognise(row) for row in renamed]
    confidence = sum(scores) / len(scores) * (RENAMED if columns else 1) if scores else 0.0
    if confidence < 0.1:
        return None
    fitting = sum(score > 0 for score in scores)
    what = f"{fitting} of the first {len(rows)} rows fit {row_format.title}"
    if columns:
        what += " when " + ", ".join(f'"{column[:40]}" is read as {field}' for field, column in columns.items())
    return Match(row_format.name, round(confidence, 3), what, columns)


def find_columns(row_format: RowFormat, names: Iterable[str]) -> dict[str, str]:
    """Field to column, for the fields that stand under another name: other letters' case first, then synonyms."""
    present = set(names)
    taken = {field.name for field in row_format.fields} & present
    found: dict[str, str] = {}
    for field in row_format.fields:
        if field.name in present:
            continue
        for wanted in (field.name, *field.synonyms):
            column = next((name for name in names if name.strip().lower() == wanted and name not in taken), None)
            if column is not None:
                found[field.name] = column
                taken.add(column)
                break
    return found
