"""Cuts Markdown that is still growing into finished blocks. A line scanner: it renders nothing and reads no line twice.

A border is drawn only where CommonMark cannot join the two sides. In doubt the block goes on: a block may hold
several paragraphs or lists and is still rendered rightly, while a border in the wrong place cannot be taken back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from chat.markdown.lines import (
    ALWAYS_INTERRUPT,
    CODE_INDENT,
    Line,
    LineKind,
    closes_fence,
    fence_of,
    language_of,
    opens_math,
    read_line,
    strip_markers,
)

TailKind = Literal["paragraph", "code", "list", "table"]

# A carriage return at the very end may be the first half of a line end.
_LINE_END = re.compile(r"\r\n|\n|\r(?!\Z)")
_START_CHARS = 200
# The offset of an empty list item after a blank line: no line is indented enough to belong to it.
NOTHING_INSIDE = 1_000_000


@dataclass(frozen=True, slots=True)
class Block:
    index: int
    source: str
    length: int
    """Code points of the text that all blocks up to this one cover."""


@dataclass(frozen=True, slots=True)
class Tail:
    kind: TailKind
    language: str = ""


class BlockStream:
    """Feed it text as it arrives, then `finish()` once. The blocks do not depend on how the text was cut."""

    def __init__(self) -> None:
        self._partial: list[str] = []
        self._lines: list[str] = []
        self._finished: list[Block] = []
        self._count = 0
        self._length = 0
        self._reset()

    def _reset(self) -> None:
        self._state = ""
        self._language = ""
        self._fence = ""
        self._math_end = ""
        self._offset = 0
        self._after_blank = False
        self._is_empty_item = False
        self._inner_fence = ""
        self._has_open_text = True
        # The last line either goes on with what is open or begins a paragraph below it.
        self._is_lazy = False
        self._is_in_quote = False
        self._above: Line | None = None

    def feed(self, text: str) -> list[Block]:
        """The blocks that this text finished."""
        if not text:
            return []
        ends_in_return = bool(self._partial) and self._partial[-1].endswith("\r")
        self._partial.append(text)
        if ends_in_return or "\n" in text or "\r" in text:
            self._take_complete_lines()
        self._finish_before_partial()
        return self._hand_over()

    def finish(self) -> list[Block]:
        """The rest. Nothing may be fed after it."""
        self._take_complete_lines()
        if self._partial:
            self._take("".join(self._partial))
            self._partial = []
        self._emit()
        return self._hand_over()

    @property
    def tail(self) -> Tail | None:
        """What the unfinished text looks like so far; None when there is none to show."""
        kinds: dict[str, TailKind] = {"code": "code", "indented": "code", "list": "list", "table": "table"}
        if self._state:
            return Tail(kinds.get(self._state, "paragraph"), self._language)
        return self._guess_tail()

    def _guess_tail(self) -> Tail | None:
        start = read_line("".join(self._partial[:_START_CHARS])[:_START_CHARS])
        if start.kind is LineKind.BLANK:
            return None
        if start.kind in (LineKind.FENCE, LineKind.INDENTED):
            return Tail("code")
        return Tail("list" if start.kind is LineKind.ITEM else "paragraph")

    def _hand_over(self) -> list[Block]:
        finished, self._finished = self._finished, []
        return finished

    def _take_complete_lines(self) -> None:
        text, end = "".join(self._partial), 0
        for found in _LINE_END.finditer(text):
            self._take(text[end : found.end()])
            end = found.end()
        self._partial = [text[end:]] if end < len(text) else []

    def _finish_before_partial(self) -> None:
        """A letter at the margin after a blank line ends a list already, so its reader need not wait for the line."""
        is_waiting = self._state == "indented" or (self._state == "list" and self._after_blank)
        if is_waiting and self._partial and self._partial[0][:1].isalpha():
            self._emit()

    def _take(self, source: str) -> None:
        if self._state == "code":
            self._add(source, ends=closes_fence(source, self._fence))
        elif self._state == "math":
            self._add(source, ends=not source.strip() or self._math_end in source)
        else:
            self._take_line(source, read_line(source))

    def _take_line(self, source: str, line: Line) -> None:
        if self._state in ("list", "indented"):
            self._continue_container(source, line)
        elif self._state:
            self._continue_text(source, line)
        else:
            self._open(source, line)

    def _open(self, source: str, line: Line) -> None:
        """The first line of a block; blank lines before it belong to it."""
        self._lines.append(source)
        match line.kind:
            case LineKind.FENCE:
                self._state = "code"
                self._fence, info = fence_of(line.text) or ("", "")
                self._language = language_of(info)
            case LineKind.HEADING | LineKind.RULE:
                self._emit()
            case LineKind.MATH:
                self._state, self._math_end = "math", opens_math(line.text)
                if self._math_end in line.text[2:]:
                    self._emit()
            case LineKind.ITEM:
                self._state, self._offset = "list", line.offset
                self._look_inside(line)
            case LineKind.INDENTED:
                self._state = "indented"
            case LineKind.QUOTE:
                self._state = "quote"
                self._look_inside(line)
            case LineKind.TEXT:
                self._state, self._above = "paragraph", line

    def _continue_text(self, source: str, line: Line) -> None:
        """A paragraph, a table or a quote: all end with a blank line."""
        if line.kind is LineKind.BLANK or self._is_heading_underline(line):
            self._add(source, ends=True)
        elif self._is_interrupted(line):
            self._reopen(source, line)
        else:
            self._add(source)
            self._follow_text(line)

    def _is_heading_underline(self, line: Line) -> bool:
        if self._state == "paragraph":
            return line.is_underline and not line.makes_table_of(self._above)
        # Under lazy text `---` is a rule or an underline. Either way the next line begins something new.
        return self._is_lazy and line.kind is LineKind.RULE and line.is_underline

    def _is_interrupted(self, line: Line) -> bool:
        match self._state, line.kind:
            case "paragraph", LineKind.RULE if line.makes_table_of(self._above):
                return False
            case "quote", LineKind.QUOTE:
                return False
            case "quote", _ if not self._has_open_text:
                return True
            case ("quote" | "table", LineKind.ITEM) | ("table", LineKind.INDENTED) | (_, LineKind.QUOTE):
                return True
        return line.kind in ALWAYS_INTERRUPT or line.interrupts

    def _follow_text(self, line: Line) -> None:
        if self._state == "paragraph":
            if line.makes_table_of(self._above):
                self._state = "table"
            self._above = line
        elif self._state == "quote":
            self._follow_quote(line)

    def _follow_quote(self, line: Line) -> None:
        if line.kind is LineKind.QUOTE:
            self._look_inside(line)
        elif line.kind is LineKind.INDENTED:
            # Text of the quote or code below it: as under a list, only a line further left decides.
            self._is_in_quote = True
            self._state, self._offset = "list", CODE_INDENT
        else:
            self._is_lazy = True

    def _continue_container(self, source: str, line: Line) -> None:
        """A list or indented code: a blank line does not end it, only a line that stands too far left."""
        if line.kind is LineKind.BLANK:
            self._add(source)
            self._after_blank, self._is_lazy = True, False
            if self._is_empty_item:
                self._offset = NOTHING_INSIDE
        elif line.indent >= (self._offset or CODE_INDENT):
            self._add(source)
            self._look_inside(line)
        elif self._state == "indented":
            self._reopen(source, line)
        else:
            self._continue_list(source, line)

    def _continue_list(self, source: str, line: Line) -> None:
        """A line to the left of the last item's content."""
        if line.kind is LineKind.ITEM:
            self._offset = line.offset
            self._add(source)
            self._inner_fence = ""
            self._look_inside(line)
        elif self._is_heading_underline(line):
            self._add(source, ends=True)
        elif self._is_list_ended(line):
            self._reopen(source, line)
        else:
            self._add(source)
            self._is_lazy = True
            if line.kind is LineKind.INDENTED:
                self._offset = min(self._offset, CODE_INDENT)

    def _look_inside(self, line: Line) -> None:
        """Whether the last line of a list or quote leaves a paragraph open, which a line outside may go on with."""
        self._after_blank = self._is_lazy = False
        self._is_empty_item = line.is_empty
        text = strip_markers(line.text)
        kind = read_line(text).kind
        if self._inner_fence:
            self._inner_fence = "" if closes_fence(text, self._inner_fence) else self._inner_fence
        elif fence := fence_of(text):
            self._has_open_text, self._inner_fence = False, fence[0]
        elif kind is not LineKind.INDENTED:
            self._has_open_text = kind is LineKind.TEXT

    def _is_list_ended(self, line: Line) -> bool:
        begins_quote = line.kind is LineKind.QUOTE and not self._is_in_quote
        return self._after_blank or not self._has_open_text or begins_quote or line.kind in ALWAYS_INTERRUPT

    def _reopen(self, source: str, line: Line) -> None:
        self._emit()
        self._open(source, line)

    def _add(self, source: str, *, ends: bool = False) -> None:
        self._lines.append(source)
        if ends:
            self._emit()

    def _emit(self) -> None:
        if self._lines:
            source = "".join(self._lines)
            self._length += len(source)
            self._finished.append(Block(self._count, source, self._length))
            self._count += 1
            self._lines = []
        self._reset()
