"""What one line of Markdown can begin, told from the line alone. The borders of `blocks` are decided with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

TAB = 4
# From this indentation on a line is code, or text of what is already open.
CODE_INDENT = 4
MATH_DELIMITERS = {"$$": "$$", "\\[": "\\]"}

_FENCE = re.compile(r"(?P<mark>`{3,}|~{3,})(?P<info>.*)$", re.DOTALL)
_HEADING = re.compile(r"#{1,6}(?:[ \t]|$)")
_RULE = re.compile(r"(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$")
_ITEM = re.compile(r"(?P<mark>[-+*]|(?P<number>[0-9]{1,9})[.)])(?P<gap>[ \t]+|$)")
_MARKERS = re.compile(r"(?:(?:[-+*]|[0-9]{1,9}[.)])(?:[ \t]+|$)|>[ \t]?)*")
_UNDERLINE = re.compile(r"(?:=+|-+)[ \t]*$")
_DELIMITER_CELL = re.compile(r":?-+:?$")
_DELIMITER_ROW = re.compile(r"(?:[|:][-|: \t]|-[-|:])[-|: \t]*$")
_CELL_BORDER = re.compile(r"(?<!\\)\|")


class LineKind(Enum):
    BLANK = auto()
    TEXT = auto()
    INDENTED = auto()
    FENCE = auto()
    HEADING = auto()
    RULE = auto()
    QUOTE = auto()
    ITEM = auto()
    MATH = auto()


# These end a paragraph that has no blank line after it, whatever it stands in.
ALWAYS_INTERRUPT = frozenset({LineKind.FENCE, LineKind.HEADING, LineKind.RULE, LineKind.MATH})


@dataclass(frozen=True, slots=True)
class Line:
    kind: LineKind
    text: str
    """Without its indentation and its end."""
    indent: int
    """In columns."""
    offset: int = 0
    """Of a list item: the column at which its content begins."""
    interrupts: bool = False
    """Of a list item: whether it may end a paragraph."""
    is_empty: bool = False
    """Of a list item: nothing stands behind its marker."""

    @property
    def is_underline(self) -> bool:
        """Makes a heading of the paragraph above."""
        return self.indent < CODE_INDENT and _UNDERLINE.match(self.text) is not None

    @property
    def cells(self) -> list[str]:
        """As those of a table's row."""
        cells = [cell.strip() for cell in _CELL_BORDER.split(self.text.strip())]
        return cells[not cells[0] : len(cells) - (len(cells) > 1 and not cells[-1])]

    def makes_table_of(self, above: Line | None) -> bool:
        """Whether this line is the row of dashes under the head of a table."""
        if above is None or above.kind is not LineKind.TEXT or "|" not in above.text:
            return False
        if self.indent >= CODE_INDENT or not _DELIMITER_ROW.match(self.text):
            return False
        cells = self.cells
        return len(cells) == len(above.cells) > 0 and all(_DELIMITER_CELL.match(cell) for cell in cells)


def read_line(source: str) -> Line:
    """Cost grows with the line, and with nothing else."""
    body = source.rstrip("\r\n")
    text = body.lstrip(" \t")
    indent = _columns(body[: len(body) - len(text)], 0)
    if not text:
        return Line(LineKind.BLANK, text, indent)
    if indent >= CODE_INDENT:
        return Line(LineKind.INDENTED, text, indent)
    return _read_start(text, indent)


def _read_start(text: str, indent: int) -> Line:
    if fence_of(text):
        return Line(LineKind.FENCE, text, indent)
    if text[0] == ">":
        return Line(LineKind.QUOTE, text, indent)
    if _HEADING.match(text):
        return Line(LineKind.HEADING, text, indent)
    if _RULE.match(text):
        return Line(LineKind.RULE, text, indent)
    if item := _ITEM.match(text):
        return _read_item(text, indent, item)
    if opens_math(text):
        return Line(LineKind.MATH, text, indent)
    return Line(LineKind.TEXT, text, indent)


def _read_item(text: str, indent: int, item: re.Match[str]) -> Line:
    marker_end = indent + len(item["mark"])
    is_empty = item.end() == len(text)
    gap = _columns(item["gap"], marker_end) - marker_end
    # Five spaces or more: one belongs to the marker, the rest is indented code inside the item.
    offset = marker_end + (gap if 1 <= gap <= 4 and not is_empty else 1)
    starts_at_one = item["number"] is None or int(item["number"]) == 1
    return Line(LineKind.ITEM, text, indent, offset, starts_at_one and not is_empty, is_empty)


def strip_markers(text: str) -> str:
    """What stands behind the markers of items and quotes at the start of a line."""
    return text[_MARKERS.match(text).end() :]


def _columns(space: str, start: int) -> int:
    column = start
    for character in space:
        column += TAB - column % TAB if character == "\t" else 1
    return column


def fence_of(text: str) -> tuple[str, str] | None:
    """The mark and the info text of a line that opens a fenced code block."""
    found = _FENCE.match(text)
    if not found or (found["mark"][0] == "`" and "`" in found["info"]):
        return None
    return found["mark"], found["info"].strip()


def closes_fence(source: str, mark: str) -> bool:
    body = source.rstrip("\r\n")
    text = body.strip(" \t")
    indent = _columns(body[: len(body) - len(body.lstrip(" \t"))], 0)
    return indent < CODE_INDENT and len(text) >= len(mark) and text == mark[0] * len(text)


def opens_math(text: str) -> str:
    """The delimiter that will end the display formula this line begins, or nothing.

    `$$x$$ and more` is a line of text with a formula in it, not a block.
    """
    end = MATH_DELIMITERS.get(text[:2], "")
    if not end:
        return ""
    at = text.find(end, 2)
    return end if at < 0 or not text[at + 2 :].strip() else ""


def language_of(info: str) -> str:
    """The language a fence names, fit to be shown: `python title="a.py"` and `{.python}` are both python."""
    found = re.search(r"[\w+#.-]{1,40}", info)
    return found[0].lstrip(".") if found else ""
