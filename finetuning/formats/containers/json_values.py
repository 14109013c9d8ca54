"""A JSON array, or objects one after another over several lines, read value by value with bounded memory.

A broken value costs itself: its end is found by its brackets, else by the next line that begins as the values do.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from finetuning.formats.containers.jsonl import RawRow, check_object, describe
from finetuning.formats.problems import Code, Limits, Problem

_decode = json.JSONDecoder().raw_decode
_GAP = re.compile(r"[\s,]*")
_MARK = re.compile(r'["\n{}\[\]]|\\.', re.DOTALL)
_NEXT_START = re.compile(r"[{\[\]]")


def read_json_values(chunks: Iterator[bytes], limits: Limits) -> Iterator[RawRow]:
    return ValueReader(chunks, limits).read()


class EndFinder:
    """Where a value ends, by its brackets; text is given as it arrives and looked at once.

    A line end closes an open string, which JSON forbids to go over lines: so a missing mark does not swallow the file.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.position = 0
        self.in_string = False

    def find(self, text: str) -> int | None:
        """The end of the value that starts at 0, or None while `text` (the earlier text and more) does not hold it."""
        for mark in _MARK.finditer(text, self.position):
            character = mark.group()
            if character == '"':
                self.in_string = not self.in_string
            elif character == "\n":
                self.in_string = False
            elif not self.in_string and character in "{[":
                self.depth += 1
            elif not self.in_string and character in "}]":
                self.depth -= 1
                if self.depth <= 0:
                    return mark.end()
        self.position = len(text) - text.endswith("\\")  # an escape may be cut in two
        return None


class ValueReader:
    def __init__(self, chunks: Iterator[bytes], limits: Limits) -> None:
        self.limits = limits
        self.resyncs = 0
        self.line = 1
        self.indent: str | None = None  # what stands before the first value on its line, when it begins one
        self._chunks = chunks
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text = ""
        self._at = 0
        self._ended = False

    def read(self) -> Iterator[RawRow]:
        in_array = self._next_character() == "["
        self._advance(int(in_array))
        while character := self._next_character():
            if in_array and character == "]":
                self._advance(1)
                if self._next_character():
                    yield self.line, Problem(Code.BROKEN_JSON, "Something stands after the end of the array.")
                return
            yield self.line, self._read_value(character)
        if in_array:
            yield self.line, Problem(Code.BROKEN_JSON, "The array never ends; the file may have been cut off.")

    def _read_value(self, character: str) -> dict[str, Any] | Problem:
        if character not in "{[":
            self._skip_garbage()
            return Problem(Code.BROKEN_JSON, "The row is broken JSON: an object is expected here.")
        if self.indent is None:
            self.indent = self._indent_here()
        try:
            value, end = _decode(self._text, self._at)
        except (ValueError, RecursionError):
            return self._read_by_brackets()  # broken, or not yet read to its end
        length = end - self._at
        self._advance(length)
        return self._check(value, length)

    def _read_by_brackets(self) -> dict[str, Any] | Problem:
        self._drop_read()
        finder = EndFinder()
        while (end := finder.find(self._text)) is None:
            if len(self._text) > self.limits.max_row_bytes or not self._read_more():
                return self._give_up(finder)
        try:
            value, end = _decode(self._text[:end])
        except (ValueError, RecursionError) as error:
            self._advance(self._find_restart(end) or end)
            return describe(error)
        self._advance(end)
        return self._check(value, end)

    def _check(self, value: object, length: int) -> dict[str, Any] | Problem:
        return _too_long(self.limits) if length > self.limits.max_row_bytes else check_object(value, self.limits)

    def _give_up(self, finder: EndFinder) -> Problem:
        """No end in sight: go on at the next line that looks like a value, else pass the rest over."""
        too_long = len(self._text) > self.limits.max_row_bytes
        restart = self._find_restart()
        if restart and self.resyncs < self.limits.max_resyncs:
            self.resyncs += 1
            self._advance(restart)
            return Problem(Code.BROKEN_JSON, "The row is broken JSON: it never ends.")
        if not too_long:
            self._advance(len(self._text))
            return Problem(Code.BROKEN_JSON, "The row is broken JSON: the file ends within it.")
        self._pass_over(finder)
        return _too_long(self.limits)

    def _pass_over(self, finder: EndFinder) -> None:
        while True:
            kept = self._text[finder.position :]
            self._advance(finder.position)
            self._drop_read()
            finder.position = 0
            if not self._read_more():
                self._advance(len(kept))
                return
            end = finder.find(self._text)
            if end is not None:
                self._advance(end)
                return

    def _find_restart(self, end: int | None = None) -> int | None:
        if self.indent is None:
            return None
        found = self._text.find(f"\n{self.indent}{{", 1, end)
        return found + 1 if found >= 0 else None

    def _skip_garbage(self) -> None:
        """Go on at the next bracket."""
        while True:
            found = _NEXT_START.search(self._text, self._at + 1)
            self._advance((found.start() if found else len(self._text)) - self._at)
            if found:
                return
            self._drop_read()
            if not self._read_more():
                return

    def _next_character(self) -> str:
        """The first character of the next value, past white space and commas; "" at the end of the file."""
        while True:
            gap = _GAP.match(self._text, self._at)
            self._advance(gap.end() - self._at if gap else 0)
            if self._at < len(self._text):
                return self._text[self._at]
            self._drop_read()
            if not self._read_more():
                return ""

    def _indent_here(self) -> str | None:
        start = self._text.rfind("\n", 0, self._at) + 1
        before = self._text[start : self._at]
        return before if not before.strip() and len(before) < 100 else None

    def _advance(self, count: int) -> None:
        self.line += self._text.count("\n", self._at, self._at + count)
        self._at += count

    def _drop_read(self) -> None:
        self._text, self._at = self._text[self._at :], 0

    def _read_more(self) -> bool:
        """More text behind what is held; False at the end of the file."""
        while not self._ended:
            chunk = next(self._chunks, b"")
            self._ended = not chunk
            more = self._decoder.decode(chunk, final=self._ended)
            if more:
                self._text += more
                return True
        return False


def _too_long(limits: Limits) -> Problem:
    return Problem(Code.ROW_TOO_LONG, f"The row is longer than {limits.max_row_bytes:,} bytes and was not read.")
