"""What a file most likely is, from its first rows: container, encoding, row format and columns, with the reasons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import BinaryIO

from finetuning.formats.containers.delimited import RecordReader
from finetuning.formats.containers.parquet import list_parquet_columns
from finetuning.formats.containers.source import CHUNK_BYTES, Openable, open_source, read_chunks, to_utf8
from finetuning.formats.encodings import EncodingGuess, detect_encoding
from finetuning.formats.layout import Layout
from finetuning.formats.matching import Match, Row, match_formats
from finetuning.formats.parsing import GROUP, read_rows
from finetuning.formats.problems import DEFAULT_LIMITS, Code, FileRefusedError, Limits, Problem

SAMPLE_ROWS = 50
DELIMITERS = (",", "\t", ";", "|")
PACKED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip (or an Excel workbook)",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"7z\xbc\xaf\x27\x1c": "7-zip",
    b"Rar!\x1a\x07": "rar",
}
BINARY = {
    b"%PDF": "a PDF",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3": "a SQLite database",
    b"\x80\x04": "a pickle",
}


@dataclass(frozen=True, slots=True)
class Detection:
    """`layout.format_name` is "" when no format fits: then a person says which column is what."""

    layout: Layout
    confidence: float  # 0 to 1
    reason: str
    columns: tuple[str, ...]  # seen in the first rows
    alternatives: tuple[Match, ...] = ()  # other formats that would fit, best first
    refusal: str = ""  # why not one of the first rows can be read: then no choice of columns helps


def detect(source: Openable, *, limits: Limits = DEFAULT_LIMITS) -> Detection:
    """Reads the first rows, and a file that can be rewound once over for its encoding; leaves a stream at its start.

    Raises FileRefusedError for what is empty, packed or no text. A stream that cannot be rewound is not accepted.
    """
    with open_source(source) as stream:
        if not stream.seekable():
            raise FileRefusedError(Code.UNKNOWN_LAYOUT, "The file must be stored before it can be examined.")
        start = stream.tell()
        try:
            return _detect(stream, start, limits)
        finally:
            stream.seek(start)


def _detect(stream: BinaryIO, start: int, limits: Limits) -> Detection:
    head = stream.read(CHUNK_BYTES)
    stream.seek(start)
    if not head:
        raise FileRefusedError(Code.EMPTY_FILE, "The file is empty.")
    if head.startswith(b"PAR1"):
        names = list_parquet_columns(stream, limits)
        stream.seek(start)
        return _conclude(stream, Layout("parquet"), "a parquet file", limits, columns=names)
    refuse_binary(head)
    guess = detect_encoding(read_chunks(stream))
    text = b"".join(to_utf8(iter([head]), guess.encoding))
    if b"\x00" in text:
        raise FileRefusedError(Code.BINARY_FILE, "The file is not text.")
    if not text.strip():
        raise FileRefusedError(Code.EMPTY_FILE, "The file has no rows.")
    layout, reason = _detect_container(text, guess, limits)
    stream.seek(start)
    return _conclude(stream, layout, f"{reason} in {guess.reason}", limits)


def refuse_binary(head: bytes) -> None:
    """Raises FileRefusedError by the first bytes of what is packed or certainly no data file."""
    for mark, name in PACKED.items():
        if head.startswith(mark):
            message = f"The file is packed as {name}. Unpack it and upload what is inside."
            raise FileRefusedError(Code.COMPRESSED, message)
    for mark, name in BINARY.items():
        if head.startswith(mark):
            raise FileRefusedError(Code.BINARY_FILE, f"The file is {name}, not a data file that can be read here.")


def _detect_container(text: bytes, guess: EncodingGuess, limits: Limits) -> tuple[Layout, str]:
    first = text.lstrip()[:1]
    if first == b"{":
        lines = [line for line in islice(text.split(b"\n"), 20) if line.strip()]
        whole = any(_is_json(line) for line in lines) or len(lines) == 1
        if whole:
            return Layout("jsonl", encoding=guess.encoding), "JSON lines"
        return Layout("json", encoding=guess.encoding), "JSON objects over several lines"
    if first == b"[":
        return Layout("json", encoding=guess.encoding), "a JSON array"
    delimiter = _detect_delimiter(text, limits)
    if delimiter:
        name = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}[delimiter]
        return Layout("csv", encoding=guess.encoding, delimiter=delimiter), f"a table separated by {name}"
    return Layout("lines", "text", encoding=guess.encoding), "lines of text"


def _is_json(line: bytes) -> bool:
    with suppress(ValueError, RecursionError):
        return type(json.loads(line)) is dict
    return False


def _detect_delimiter(text: bytes, limits: Limits) -> str:
    """The one that cuts most of the first records into as many cells (two or more) as the first."""
    best, best_share = "", 0.0
    for delimiter in DELIMITERS:
        records = [cells for _, cells in islice(_records(text, delimiter, limits), SAMPLE_ROWS)]
        width = len(records[0]) if records and not isinstance(records[0], Problem) else 0
        if width < 2:
            continue
        share = sum(not isinstance(cells, Problem) and len(cells) == width for cells in records) / len(records)
        if share > best_share:
            best, best_share = delimiter, share
    return best if best_share > 0.5 else ""


def _records(text: bytes, delimiter: str, limits: Limits) -> Iterator[tuple[int, list[str] | Problem]]:
    cut = text if len(text) < CHUNK_BYTES else text[: text.rfind(b"\n") + 1] or text
    return RecordReader(iter([cut]), limits, delimiter=delimiter)


def _conclude(
    stream: BinaryIO, layout: Layout, container: str, limits: Limits, *, columns: list[str] | None = None
) -> Detection:
    rows, names, problem = _sample(stream, layout, limits)
    names = columns or names
    matches = match_formats(rows)
    if layout.container == "lines":
        return Detection(layout, 0.5, f"This looks like {container}, one text a line.", tuple(names))
    if not matches:
        message = f"This looks like {container}, but no known format fits its columns; choose one and its columns."
        refusal = "" if rows else f"This looks like {container}, but its first rows cannot be read. {problem}"
        return Detection(layout, 0.0, message, tuple(names), refusal=refusal)
    best = matches[0]
    found = replace(layout, format_name=best.format_name, columns=dict(best.columns) | _group_column(names))
    reason = f"This looks like {container}: {best.reason}."
    return Detection(found, best.confidence, reason, tuple(names), tuple(matches[1:]))


def _sample(stream: BinaryIO, layout: Layout, limits: Limits) -> tuple[list[Row], list[str], str]:
    """Some rows, their columns, and a sentence about the first row that is none."""
    rows: list[Row] = []
    problem = ""
    for line, row in islice(read_rows(stream, layout, limits=limits), SAMPLE_ROWS):
        if not isinstance(row, Problem):
            rows.append(row)
        elif not problem:
            problem = f"Line {line}: {row.message}"
    names = list(dict.fromkeys(name for row in rows for name in row))
    return rows, names[: limits.max_columns], problem


def _group_column(names: list[str]) -> dict[str, str]:
    for name in names:
        if name.lower() in ("conversation_id", "conversation_hash", "thread_id", "dialogue_id", "dialog_id"):
            return {GROUP: name}
    return {}
