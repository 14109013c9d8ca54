"""The rows of an import on their way into the database, in small steps that each keep their own account.

A step's rows, problems and counts are written together, so whoever takes over after a crash goes on at `rows_read`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from django.db import transaction

from finetuning.datasets.drafts import Draft, NewRow, RowMaker, store_rows
from finetuning.datasets.folders import under_data
from finetuning.datasets.layouts import layout_from_dict
from finetuning.datasets.leases import Lease
from finetuning.datasets.polite import BATCH_ROWS, Pace
from finetuning.formats import Problem, Severity, parse
from finetuning.formats.measures import measure_length
from finetuning.models import Dataset, DatasetImport, ImportProblem

KEPT_PROBLEMS = 200  # of each code
STEP_ENTRIES = 1000
STEP_CHARS = 1_000_000
STEP_SECONDS = 1.0


class WorkerEndingError(Exception):
    """The rows read so far are kept; the next worker goes on."""


Progress = Callable[[DatasetImport], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the source: what it became, if anything, and what was noticed."""

    line: int
    draft: Draft | None
    problems: tuple[Problem, ...] = ()


def read_entries(source_import: DatasetImport, on_progress: Callable[[int, int | None], None]) -> Iterator[Entry]:
    """Everything in the source from its beginning. Raises FileRefusedError, OSError."""
    if source_import.source == DatasetImport.Source.CONVERSATIONS:
        yield from _read_conversations(source_import)
        return
    layout = layout_from_dict(source_import.layout)
    for result in parse(under_data(source_import.path), layout, on_progress=on_progress):
        draft = Draft(result.example, line=result.line, group=result.group) if result.example else None
        yield Entry(result.line, draft, result.problems)


def _read_conversations(source_import: DatasetImport) -> Iterator[Entry]:
    from finetuning.conversations.examples import Filters, iterate_drafts  # they build on this package

    for line, draft in enumerate(iterate_drafts(Filters.from_dict(source_import.filters)), 1):
        yield Entry(line, draft)


def give_way() -> None:
    """Call it between steps. Raises WorkerEndingError."""
    from finetuning.jobs import shutdown  # jobs build on this package

    if shutdown.is_requested():
        raise WorkerEndingError


class Recorder:
    """Writes entries under a lease. `source_import` keeps the counts as they stand in the database."""

    def __init__(self, source_import: DatasetImport, lease: Lease, *, progress: Progress | None = None) -> None:
        self.source_import = source_import
        self.dataset: Dataset = source_import.dataset
        self._lease = lease
        self._progress = progress
        self._maker = RowMaker(self.dataset, source_import, is_approved=source_import.is_approved)
        self._pace = Pace()
        self._bytes_read = source_import.bytes_read
        self._codes = Counter(source_import.codes)
        self._findings = Counter(source_import.findings)

    def record(self) -> None:
        """All that is not recorded yet. Raises what `Lease.write` and `read_entries` raise, and WrongKindError."""
        entries = read_entries(self.source_import, self._on_progress)
        for step in in_steps(islice(entries, self.source_import.rows_read, None)):
            self._write(step)
            give_way()
            if self._progress:
                self._progress(self.source_import)

    def _on_progress(self, done: int, total: int | None) -> None:
        self._bytes_read = max(self._bytes_read, done)
        self._lease.beat()

    def _write(self, step: list[Entry]) -> None:
        rows = [self._maker.make(entry.draft) for entry in step if entry.draft]
        problems = [problem for entry in step for problem in self._keep(entry)]
        self._pace.wait()
        with transaction.atomic():
            counts = self._count(step, rows)
            ImportProblem.objects.bulk_create(problems)
            self._lease.write(**counts)
        self._pace.ended()
        for name, value in counts.items():
            setattr(self.source_import, name, value)

    def _keep(self, entry: Entry) -> Iterator[ImportProblem]:
        """The first of each code; all of them are counted."""
        for problem in entry.problems:
            self._codes[problem.code.value] += 1
            if self._codes[problem.code.value] <= KEPT_PROBLEMS:
                yield ImportProblem(
                    source_import=self.source_import,
                    line=entry.line,
                    code=problem.code.value,
                    severity=problem.severity.value,
                    message=problem.message,
                )

    def _count(self, step: list[Entry], rows: list[NewRow]) -> dict[str, Any]:
        """Stores the rows; the import's new counts."""
        before = self.source_import
        stored = store_rows(self.dataset, rows)
        self._findings += stored.findings
        severities = Counter(_severity(entry) for entry in step)
        return {
            "bytes_read": self._bytes_read,
            "rows_read": before.rows_read + len(step),
            "rows_added": before.rows_added + stored.added,
            "duplicates": before.duplicates + stored.duplicates,
            "rows_warned": before.rows_warned + severities[Severity.WARNING],
            "rows_refused": before.rows_refused + severities[Severity.ERROR],
            "codes": dict(self._codes),
            "findings": dict(self._findings),
        }


def _severity(entry: Entry) -> Severity:
    if entry.draft is None:
        return Severity.ERROR
    return Severity.WARNING if entry.problems else Severity.OK


def in_steps(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """As many entries as may be written at once: few enough rows for others to wait, and for the memory."""
    step: list[Entry] = []
    rows, chars, began = 0, 0, time.monotonic()
    for entry in entries:
        step.append(entry)
        if entry.draft:
            rows += 1
            chars += measure_length(entry.draft.example)
        is_full = rows >= BATCH_ROWS or len(step) >= STEP_ENTRIES or chars >= STEP_CHARS
        if is_full or time.monotonic() - began > STEP_SECONDS:
            yield step
            step, rows, chars, began = [], 0, 0, time.monotonic()
    if step:
        yield step
