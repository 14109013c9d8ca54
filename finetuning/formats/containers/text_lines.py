"""Plain text: every line that says something is a row with one field, "text"."""

from __future__ import annotations

from collections.abc import Iterator

from finetuning.formats.containers.jsonl import RawRow
from finetuning.formats.containers.lines import decode_line, split_lines
from finetuning.formats.problems import Limits, Problem


def read_text_lines(chunks: Iterator[bytes], limits: Limits) -> Iterator[RawRow]:
    for number, line in split_lines(chunks, max_bytes=limits.max_row_bytes):
        if isinstance(line, Problem):
            yield number, line
        elif line and not line.isspace():
            text = decode_line(line)
            yield number, text if isinstance(text, Problem) else {"text": text.rstrip("\r")}
