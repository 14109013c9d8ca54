"""What can be wrong with a file or a row: a stable code and one sentence for people. A sentence never quotes texts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from finetuning.formats.examples import Example


class Severity(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Code(StrEnum):
    # the file as a whole
    EMPTY_FILE = "empty_file"
    COMPRESSED = "compressed"
    BINARY_FILE = "binary_file"
    UNKNOWN_LAYOUT = "unknown_layout"
    TOO_MANY_COLUMNS = "too_many_columns"
    BROKEN_FILE = "broken_file"
    # how a row is written
    BROKEN_JSON = "broken_json"
    BROKEN_CSV = "broken_csv"
    UNCLOSED_QUOTE = "unclosed_quote"
    WRONG_CELL_COUNT = "wrong_cell_count"
    NOT_AN_OBJECT = "not_an_object"
    ROW_TOO_LONG = "row_too_long"
    TOO_DEEP = "too_deep"
    BAD_ENCODING = "bad_encoding"
    NUL = "nul"
    LONE_SURROGATE = "lone_surrogate"
    # what a row says
    MISSING_FIELD = "missing_field"
    NOT_TEXT = "not_text"
    EMPTY_TEXT = "empty_text"
    NOT_MESSAGES = "not_messages"
    TOO_MANY_MESSAGES = "too_many_messages"
    UNKNOWN_ROLE = "unknown_role"
    TOOLS_UNSUPPORTED = "tools_unsupported"
    MEDIA_UNSUPPORTED = "media_unsupported"
    EMPTY_TURN = "empty_turn"
    WRONG_ORDER = "wrong_order"
    NO_ASSISTANT_TURN = "no_assistant_turn"
    NOTHING_TRAINED = "nothing_trained"
    BAD_WEIGHT = "bad_weight"
    EQUAL_SIDES = "equal_sides"
    MISSING_LABEL = "missing_label"
    UNKNOWN_LABEL = "unknown_label"
    # warnings
    EMPTY_SYSTEM_DROPPED = "empty_system_dropped"
    UNANSWERED_END = "unanswered_end"
    WEIGHT_IGNORED = "weight_ignored"
    # what a dataset as a whole warns of
    ONE_CLASS = "one_class"
    LOPSIDED_LABELS = "lopsided_labels"
    RARE_LABEL = "rare_label"
    LENGTH_BIAS = "length_bias"


@dataclass(frozen=True, slots=True)
class Problem:
    code: Code
    message: str
    severity: Severity = Severity.ERROR


class FormatError(Exception):
    """Grouped by what it condemns: one row, or the whole file."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def to_problem(self) -> Problem:
        return Problem(self.code, self.message)


class RowError(FormatError):
    """This row cannot become an example; the next one may."""


class FileRefusedError(FormatError):
    """No row of this file can be read."""


@dataclass(frozen=True, slots=True)
class RowResult:
    """One row of a file: its line (in parquet its number), its example if there is one, what was noticed."""

    line: int
    example: Example | None
    problems: tuple[Problem, ...] = ()
    group: str = ""  # the conversation it belongs to, when a column says so; rows of one group stay in one split

    @property
    def severity(self) -> Severity:
        if self.example is None:
            return Severity.ERROR
        return Severity.WARNING if self.problems else Severity.OK


def fail(code: Code, message: str) -> NoReturn:
    raise RowError(code, message)


def warn(code: Code, message: str) -> Problem:
    return Problem(code, message, Severity.WARNING)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one row may cost. Memory stays a small multiple of `max_row_bytes`."""

    max_row_bytes: int = 4 * 1024 * 1024
    max_columns: int = 256
    max_messages: int = 2000
    max_resyncs: int = 100  # how often lines swallowed by an unclosed quote or bracket are read again


DEFAULT_LIMITS = Limits()
