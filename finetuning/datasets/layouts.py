"""How an uploaded file is to be read: what detection found in it, and what a person says about its columns."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from chat.errors import BusyError, InvalidError
from finetuning.datasets.dispatch import send
from finetuning.datasets.drafts import check_kind
from finetuning.formats import (
    Code,
    Detection,
    FileRefusedError,
    Layout,
    Match,
    UnknownFormatError,
    detect,
    get_row_format,
    with_columns,
)
from finetuning.formats.matching import find_columns
from finetuning.formats.parsing import GROUP, read_rows
from finetuning.formats.problems import Problem
from finetuning.models import DatasetImport

AUTO = "auto"
SURE = 0.5  # below it a person is asked
SAMPLE_ROWS = 3
SAMPLE_CHARS = 200
MAX_COLUMNS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Examined:
    """`is_sure`: the file can be read without asking anybody."""

    layout: Layout
    is_sure: bool
    reason: str
    columns: tuple[str, ...]
    matches: tuple[Match, ...] = ()
    sample: list[dict[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As `DatasetImport.layout` keeps it."""
        matches = [asdict(match) | {"columns": dict(match.columns)} for match in self.matches]
        return layout_to_dict(self.layout) | {
            "reason": self.reason,
            "seen_columns": list(self.columns[:MAX_COLUMNS_SHOWN]),
            "matches": matches,
            "sample": self.sample,
        }


def layout_to_dict(layout: Layout) -> dict[str, Any]:
    return asdict(layout) | {"columns": dict(layout.columns)}


def layout_from_dict(data: Mapping[str, Any]) -> Layout:
    names = ("container", "format_name", "encoding", "delimiter", "has_header", "columns")
    return Layout(**{name: data[name] for name in names})


def examine(path: Path, *, kind: str = "", format_name: str = AUTO) -> Examined:
    """What the file is, for a dataset of `kind`. Raises FileRefusedError, InvalidError for an unknown format."""
    if format_name != AUTO:
        _require_format(format_name)
    detection = detect(path)
    if detection.refusal and format_name == AUTO:
        raise FileRefusedError(Code.BROKEN_FILE, detection.refusal)
    matches = _list_matches(detection)
    if format_name != AUTO:
        chosen: Match | None = _match_by_name(format_name, detection)
    else:
        chosen = _choose(matches, kind)
    if chosen is None:
        layout = with_columns(detection.layout, {})
    else:
        group = {key: name for key, name in detection.layout.columns.items() if key == GROUP}
        layout = with_columns(detection.layout, group | dict(chosen.columns), format_name=chosen.format_name)
    is_sure = chosen is not None and (chosen.confidence >= SURE or format_name != AUTO)
    sample = [] if is_sure else _sample(path, layout)
    return Examined(layout, is_sure, detection.reason, detection.columns, matches, sample)


def set_layout(source_import: DatasetImport, *, format_name: str, columns: Mapping[str, str]) -> DatasetImport:
    """A person's answer for an import that waits for it; then it is read. Raises InvalidError, BusyError."""
    status = DatasetImport.Status
    if source_import.status != status.WAITING:
        raise BusyError("This import does not wait for its columns.")
    _check_columns(format_name, columns, source_import.layout.get("seen_columns", []))
    check_kind(source_import.dataset, get_row_format(format_name).kind)
    kept = {key: value for key, value in source_import.layout.items() if key != "sample"}
    layout = kept | {"format_name": format_name, "columns": dict(columns)}
    waiting = DatasetImport.objects.filter(pk=source_import.pk, status=status.WAITING)
    if not waiting.update(layout=layout, status=status.QUEUED):
        raise BusyError("Somebody else has just answered for this import.")
    source_import.refresh_from_db()
    send("run_import", source_import.pk)
    return source_import


def _require_format(name: str) -> None:
    try:
        get_row_format(name)
    except UnknownFormatError as error:
        raise InvalidError(f"There is no format named “{name[:40]}”.") from error


def _list_matches(detection: Detection) -> tuple[Match, ...]:
    layout = detection.layout
    if not layout.format_name:
        return ()
    columns = {field: name for field, name in layout.columns.items() if field != GROUP}
    best = Match(layout.format_name, detection.confidence, detection.reason, columns)
    return (best, *detection.alternatives)


def _choose(matches: tuple[Match, ...], kind: str) -> Match | None:
    """The best that the dataset can hold; when none can, the best, so that the refusal says what the file is."""
    fitting = [match for match in matches if not kind or get_row_format(match.format_name).kind == kind]
    return next(iter(fitting or matches), None)


def _match_by_name(name: str, detection: Detection) -> Match:
    return Match(name, 1.0, "chosen", find_columns(get_row_format(name), detection.columns))


def _check_columns(format_name: str, columns: Mapping[str, str], seen: list[str]) -> None:
    _require_format(format_name)
    row_format = get_row_format(format_name)
    known = {field.name for field in row_format.fields} | {GROUP}
    for name, column in columns.items():
        if name not in known:
            raise InvalidError(f"{row_format.title} have no field “{name[:40]}”.")
        if seen and column not in seen:
            raise InvalidError(f"The file has no column “{column[:40]}”.")
    for needed in row_format.fields:
        if needed.required and needed.name not in columns and seen and needed.name not in seen:
            raise InvalidError(f"Say which column holds “{needed.name}”.")


def _sample(path: Path, layout: Layout) -> list[dict[str, str]]:
    """A few rows as the file has them, cut short, for whoever says which column is what."""
    rows: list[dict[str, str]] = []
    try:
        with path.open("rb") as stream, closing(_readable_rows(stream, layout)) as source:
            rows.extend(islice(source, SAMPLE_ROWS))
    except FileRefusedError:
        return rows
    return rows


def _readable_rows(stream: Any, layout: Layout) -> Any:
    for _, row in read_rows(stream, layout):
        if not isinstance(row, Problem):
            yield {str(name)[:80]: _shorten(value) for name, value in list(row.items())[:MAX_COLUMNS_SHOWN]}


def _shorten(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = text[: SAMPLE_CHARS * 2].encode("utf-8", "replace").decode().replace("\x00", " ")
    return text if len(text) <= SAMPLE_CHARS else f"{text[:SAMPLE_CHARS]}…"
