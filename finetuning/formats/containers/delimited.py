"""CSV and TSV: records that may span lines, cells by the header's names, every cell a text."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator

from finetuning.formats.containers.jsonl import RawRow
from finetuning.formats.containers.lines import RawLine, decode_line, split_lines
from finetuning.formats.problems import Code, FileRefusedError, Limits, Problem

MAX_RECORD_LINES = 10_000
Record = tuple[int, list[str] | Problem]


def read_delimited(chunks: Iterator[bytes], limits: Limits, *, delimiter: str, has_header: bool) -> Iterator[RawRow]:
    """Raises FileRefusedError when the first record gives no usable columns."""
    records = RecordReader(chunks, limits, delimiter=delimiter)
    first = next(records, None)
    if first is None:
        return
    names = _column_names(first[1], limits, has_header=has_header)
    if not has_header:
        yield first[0], _to_row(first[1], names)
    for line, cells in records:
        yield line, _to_row(cells, names)


def _column_names(cells: list[str] | Problem, limits: Limits, *, has_header: bool) -> list[str]:
    if isinstance(cells, Problem):
        raise FileRefusedError(cells.code, f"The first row cannot be read. {cells.message}")
    if len(cells) > limits.max_columns:
        message = f"The file has {len(cells)} columns; at most {limits.max_columns} are read."
        raise FileRefusedError(Code.TOO_MANY_COLUMNS, message)
    plain = [f"column {number}" for number in range(1, len(cells) + 1)]
    if not has_header:
        return plain
    names = [cell.strip() or name for cell, name in zip(cells, plain, strict=True)]
    if len(set(names)) < len(names):
        raise FileRefusedError(Code.UNKNOWN_LAYOUT, "Two columns of the header have the same name.")
    return names


def _to_row(cells: list[str] | Problem, names: list[str]) -> dict[str, str] | Problem:
    if isinstance(cells, Problem):
        return cells
    if len(cells) != len(names):
        return Problem(
            Code.WRONG_CELL_COUNT,
            f"The row has {len(cells)} cells where the header has {len(names)}; is a quotation mark missing?",
        )
    return dict(zip(names, cells, strict=True))


class RecordReader(Iterator[Record]):
    """Records with the line they begin on. A quotation mark never closed costs its own line, not the lines after it."""

    def __init__(self, chunks: Iterator[bytes], limits: Limits, *, delimiter: str) -> None:
        self.limits = limits
        self.delimiter = delimiter
        self.resyncs = 0
        self._lines = split_lines(chunks, max_bytes=limits.max_row_bytes)
        self._again: deque[RawLine] = deque()
        self._taken: list[RawLine] = []
        self._taken_bytes = 0

    def __next__(self) -> Record:
        while True:
            number, line = self._next_line()
            if isinstance(line, Problem):
                return number, line
            if line and not line.isspace():
                self._again.appendleft((number, line))
                return number, self._read_record()

    def _next_line(self) -> RawLine:
        return self._again.popleft() if self._again else next(self._lines)

    def _read_record(self) -> list[str] | Problem:
        self._taken, self._taken_bytes = [], 0
        reader = csv.reader(self._take_lines(), delimiter=self.delimiter, strict=False)
        try:
            cells = next(reader)
        except _OpenQuoteError:
            return self._give_back(_unclosed())
        except _BadLineError as error:
            return self._give_back(error.problem)
        except csv.Error as error:
            if len(self._taken) > 1:  # the csv module's own bound on a cell; most likely a mark that was never closed
                return self._give_back(_unclosed())
            return Problem(Code.BROKEN_CSV, f"The row cannot be read as CSV: {error}.")
        return cells

    def _take_lines(self) -> Iterator[str]:
        """Lines for the csv module, which asks for another one only inside an open quotation mark."""
        while True:
            try:
                number, line = self._next_line()
            except StopIteration:
                raise _OpenQuoteError from None
            self._taken.append((number, line))
            text = line if isinstance(line, Problem) else decode_line(line)
            if isinstance(text, Problem):
                raise _BadLineError(text)
            self._taken_bytes += len(text) + 1
            if self._taken_bytes > self.limits.max_row_bytes or len(self._taken) > MAX_RECORD_LINES:
                raise _OpenQuoteError
            yield text.removesuffix("\r") + "\n"

    def _give_back(self, problem: Problem) -> Problem:
        """All lines but the first are read again, as long as this does not happen so often that the file never ends."""
        if len(self._taken) > 1 and self.resyncs < self.limits.max_resyncs:
            self.resyncs += 1
            self._again.extendleft(reversed(self._taken[1:]))
        return problem


def _unclosed() -> Problem:
    return Problem(Code.UNCLOSED_QUOTE, "A quotation mark opens a cell that never ends.")


class _OpenQuoteError(Exception):
    pass


class _BadLineError(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem
