"""Rows read from bytes, in one line, for these tests."""

from __future__ import annotations

import json
from io import BytesIO

from finetuning.formats import Layout, Limits, RowResult, detect, parse

SMALL = Limits(max_row_bytes=2000)


def to_lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def read(data: bytes, layout: Layout | None = None, **options) -> list[RowResult]:
    stream = BytesIO(data)
    return list(parse(stream, layout or detect(stream).layout, **options))


def read_row(format_name: str, row: object, **layout) -> RowResult:
    (result,) = read(to_lines(row), Layout("jsonl", format_name, **layout))
    return result


def codes(results: list[RowResult]) -> list[tuple[int, str]]:
    return [(result.line, problem.code.value) for result in results for problem in result.problems]


def chat(*texts: str) -> dict:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]}
