"""A file to examples, row by row with constant memory; one bad row never stops the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, BinaryIO

from finetuning.formats.containers.delimited import read_delimited
from finetuning.formats.containers.json_values import read_json_values
from finetuning.formats.containers.jsonl import RawRow, read_json_lines
from finetuning.formats.containers.parquet import read_parquet
from finetuning.formats.containers.source import Openable, Progress, open_source, read_chunks, to_utf8
from finetuning.formats.containers.text_lines import read_text_lines
from finetuning.formats.layout import Layout
from finetuning.formats.problems import DEFAULT_LIMITS, FileRefusedError, Limits, Problem, RowError, RowResult
from finetuning.formats.registry import RowFormat, get_row_format

GROUP = "group"
MAX_GROUP_LENGTH = 200


def parse(
    source: Openable, layout: Layout, *, on_progress: Progress | None = None, limits: Limits = DEFAULT_LIMITS
) -> Iterator[RowResult]:
    """Every row of the file with its line, its example and what is wrong with it.

    Raises FileRefusedError before the first row when the file cannot be read at all, UnknownFormatError at once for a
    format nobody has; a file that turns out damaged later ends with an error row.
    """
    row_format = get_row_format(layout.format_name)
    return _parse(source, layout, row_format, on_progress=on_progress, limits=limits)


def _parse(
    source: Openable, layout: Layout, row_format: RowFormat, *, on_progress: Progress | None, limits: Limits
) -> Iterator[RowResult]:
    line = 0
    columns = dict(layout.columns)
    with open_source(source) as stream:
        try:
            for line, row in read_rows(stream, layout, on_progress=on_progress, limits=limits):
                yield _to_result(line, row, row_format, columns)
        except FileRefusedError as error:
            if not line:
                raise
            yield RowResult(line + 1, None, (error.to_problem(),))


def read_rows(
    stream: BinaryIO, layout: Layout, *, on_progress: Progress | None = None, limits: Limits = DEFAULT_LIMITS
) -> Iterator[RawRow]:
    """The file's rows before any format has looked at them."""
    if layout.container == "parquet":
        return read_parquet(stream, limits, on_progress=on_progress)
    chunks = to_utf8(read_chunks(stream, on_progress=on_progress), layout.encoding)
    match layout.container:
        case "jsonl":
            return read_json_lines(chunks, limits)
        case "json":
            return read_json_values(chunks, limits)
        case "csv":
            return read_delimited(chunks, limits, delimiter=layout.delimiter, has_header=layout.has_header)
        case "lines":
            return read_text_lines(chunks, limits)


def rename_columns(row: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row under our field names. A field whose column the row lacks is missing, even if its own name is there."""
    renamed = {name: value for name, value in row.items() if name not in columns}
    for field, column in columns.items():
        if column in row:
            renamed[field] = row[column]
    return renamed


def _to_result(
    line: int, row: dict[str, Any] | Problem, row_format: RowFormat, columns: Mapping[str, str]
) -> RowResult:
    if isinstance(row, Problem):
        return RowResult(line, None, (row,))
    group = ""
    if columns:
        row = rename_columns(row, columns)
        if GROUP in columns:
            group = _group_key(row.get(GROUP))
    warnings: list[Problem] = []
    try:
        example = row_format.read(row, warnings)
    except RowError as error:
        return RowResult(line, None, (*warnings, error.to_problem()), group)
    return RowResult(line, example, tuple(warnings), group)


def _group_key(value: object) -> str:
    """Ids are texts or whole numbers; whatever else stands there groups nothing."""
    if type(value) is int and value.bit_length() <= 128:
        return str(value)
    return value.strip()[:MAX_GROUP_LENGTH] if type(value) is str and value.isprintable() else ""


def with_columns(layout: Layout, columns: Mapping[str, str], *, format_name: str | None = None) -> Layout:
    """The layout with the caller's own choice of columns and format."""
    return replace(layout, columns=dict(columns), format_name=format_name or layout.format_name)
