"""Reads of datasets that know who asks: curators see all, others none. Whoever holds a dataset may see its parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.db.models import Count, F, Model, OuterRef, Q, QuerySet, Subquery, TextField
from django.db.models.functions import Cast

from chat.cursors import decode_cursor, encode_cursor
from chat.errors import InvalidError, NotFoundError
from finetuning.access import check_curator
from finetuning.formats.measures import measure_labels, measure_lengths
from finetuning.models import Dataset, DatasetImport, DatasetVersion, Example, ImportProblem
from finetuning.scanning import FindingKind

Person = AbstractBaseUser | AnonymousUser
Row = TypeVar("Row", bound=Model)

PAGE_SIZE = 30
MAX_PAGE_SIZE = 200
MAX_ID = 2**63 - 1
ANY_FINDING = "any"
# Of a larger dataset every n-th row is measured: a page must not read gigabytes.
MEASURED_ROWS = 20_000
MAX_LABELS = 200


@dataclass(frozen=True)
class Page(Generic[Row]):
    items: list[Row]
    next_cursor: str | None


def list_datasets(*, user: Person, cursor: str | None = None, limit: int = PAGE_SIZE) -> Page[Dataset]:
    """The latest changed first; each knows its `counts` by status and its `newest_version`."""
    check_curator(user)
    rows = Dataset.objects.filter(deleted_at=None).order_by("-updated_at", "-pk")
    if cursor:
        moment, last = decode_cursor(cursor, datetime, int)
        rows = rows.filter(Q(updated_at__lt=moment) | Q(updated_at=moment, pk__lt=_bounded(last)))
    items, has_more = _take(rows, limit)
    _add_counts(items)
    return Page(items, encode_cursor(items[-1].updated_at, items[-1].pk) if has_more else None)


def _add_counts(datasets: Sequence[Dataset]) -> None:
    """Two queries, however many datasets."""
    counted = {dataset.pk: dict.fromkeys(Example.Status.values, 0) for dataset in datasets}
    rows = Example.objects.filter(dataset__in=datasets).values_list("dataset", "status").order_by()
    for dataset_id, status, count in rows.annotate(rows=Count("pk")):
        counted[dataset_id][status] = count
    newest = DatasetVersion.objects.filter(dataset=OuterRef("dataset")).order_by("-number").values("pk")[:1]
    versions = DatasetVersion.objects.filter(dataset__in=datasets, pk=Subquery(newest))
    by_dataset = {version.dataset_id: version for version in versions}
    for dataset in datasets:
        dataset.counts = counted[dataset.pk]  # type: ignore[attr-defined]
        dataset.newest_version = by_dataset.get(dataset.pk)  # type: ignore[attr-defined]


def get_dataset(dataset_id: int, *, user: Person) -> Dataset:
    """Raises NotFoundError, ForbiddenError."""
    check_curator(user)
    dataset = Dataset.objects.filter(pk=_bounded(dataset_id), deleted_at=None).first()
    if dataset is None:
        raise NotFoundError("There is no such dataset.")
    return dataset


def find_dataset(name: str, *, user: Person) -> Dataset:
    """By its name. Raises NotFoundError, ForbiddenError."""
    check_curator(user)
    dataset = Dataset.objects.filter(name=name, deleted_at=None).first()
    if dataset is None:
        raise NotFoundError(f"There is no dataset named “{name[:80]}”.")
    return dataset


def get_import(import_id: UUID, *, user: Person, dataset: Dataset | None = None) -> DatasetImport:
    """Raises NotFoundError, ForbiddenError."""
    check_curator(user)
    rows = DatasetImport.objects.select_related("dataset").filter(pk=import_id, dataset__deleted_at=None)
    found = (rows.filter(dataset=dataset) if dataset else rows).first()
    if found is None:
        raise NotFoundError("There is no such import.")
    return found


def get_newest_upload(dataset: Dataset) -> DatasetImport:
    """Whether it is complete or not. Raises NotFoundError."""
    rows = dataset.imports.filter(source=DatasetImport.Source.FILE, part_size__gt=0).select_related("dataset")
    found = rows.order_by("-created_at").first()
    if found is None:
        raise NotFoundError("No upload was started for this dataset.")
    return found


def list_imports(dataset: Dataset, *, cursor: str | None = None, limit: int = PAGE_SIZE) -> Page[DatasetImport]:
    rows = dataset.imports.order_by("-created_at", "-pk")
    if cursor:
        moment, last = decode_cursor(cursor, datetime, UUID)
        rows = rows.filter(Q(created_at__lt=moment) | Q(created_at=moment, pk__lt=last))
    items, has_more = _take(rows, limit)
    return Page(items, encode_cursor(items[-1].created_at, items[-1].pk) if has_more else None)


def list_problems(
    source_import: DatasetImport, *, code: str = "", cursor: str | None = None, limit: int = PAGE_SIZE
) -> Page[ImportProblem]:
    """By line. Of each code the first are kept; `codes` of the import counts all."""
    rows = source_import.problems.order_by("line", "pk")
    if code:
        rows = rows.filter(code=code)
    if cursor:
        line, last = (_bounded(value) for value in decode_cursor(cursor, int, int))
        rows = rows.filter(Q(line__gt=line) | Q(line=line, pk__gt=last))
    items, has_more = _take(rows, limit)
    return Page(items, encode_cursor(items[-1].line, items[-1].pk) if has_more else None)


def count_problems(source_import: DatasetImport, *, code: str = "") -> int:
    """How many are kept."""
    rows = source_import.problems.filter(code=code) if code else source_import.problems
    return rows.count()


def list_examples(
    dataset: Dataset,
    *,
    user: Person,
    status: str = "",
    query: str = "",
    finding: str = "",
    origin: str = "",
    label: str = "",
    cursor: str | None = None,
    limit: int = PAGE_SIZE,
) -> Page[Example]:
    """Raises InvalidError for a filter that does not exist."""
    check_curator(user)
    rows = filter_examples(dataset, status=status, query=query, finding=finding, origin=origin, label=label)
    if cursor:
        (last,) = decode_cursor(cursor, int)
        rows = rows.filter(pk__gt=_bounded(last))
    items, has_more = _take(rows.select_related("reviewed_by", "model_version__model").order_by("pk"), limit)
    return Page(items, encode_cursor(items[-1].pk) if has_more else None)


def filter_examples(
    dataset: Dataset, *, status: str = "", query: str = "", finding: str = "", origin: str = "", label: str = ""
) -> QuerySet[Example]:
    """Raises InvalidError."""
    rows = Example.objects.filter(dataset=dataset)
    if status:
        rows = rows.filter(status=_one_of(status, Example.Status.values, "status"))
    if origin:
        rows = rows.filter(origin=_one_of(origin, Example.Origin.values, "origin"))
    if label:
        rows = rows.filter(label=label)
    if finding == ANY_FINDING:
        rows = rows.exclude(findings={})
    elif finding:
        rows = rows.filter(findings__has_key=_one_of(finding, list(FindingKind), "finding"))
    if query.strip():
        rows = rows.alias(text=Cast("content", TextField())).filter(text__icontains=_as_stored(query.strip()))
    return rows


def get_example(example_id: int, *, user: Person, dataset: Dataset | None = None) -> Example:
    """Raises NotFoundError, ForbiddenError."""
    check_curator(user)
    rows = Example.objects.select_related("dataset", "reviewed_by", "model_version__model")
    found = rows.filter(pk=_bounded(example_id), dataset__deleted_at=None)
    example = (found.filter(dataset=dataset) if dataset else found).first()
    if example is None:
        raise NotFoundError("There is no such row.")
    return example


def list_versions(dataset: Dataset) -> list[DatasetVersion]:
    """The newest first."""
    return list(dataset.versions.select_related("created_by").order_by("-number"))


def get_version(dataset: Dataset, number: int) -> DatasetVersion:
    """Raises NotFoundError."""
    versions = dataset.versions.select_related("dataset", "created_by")
    version = versions.filter(number=min(number, 2**31 - 1)).first()
    if version is None:
        raise NotFoundError("There is no such version.")
    return version


def get_version_before(version: DatasetVersion) -> DatasetVersion:
    """The ready one before it. Raises NotFoundError."""
    ready = DatasetVersion.objects.filter(dataset=version.dataset_id, status=DatasetVersion.Status.READY)
    before = ready.filter(number__lt=version.number).order_by("-number").first()
    if before is None:
        raise NotFoundError("There is no version before this one.")
    return before


def require_ready(version: DatasetVersion) -> DatasetVersion:
    """Raises InvalidError for one that has no files."""
    if version.status != DatasetVersion.Status.READY:
        raise InvalidError(f"Version {version.number} is not ready.")
    return version


def count_by_status(dataset: Dataset) -> dict[str, int]:
    rows = Example.objects.filter(dataset=dataset).values("status").annotate(rows=Count("pk")).order_by()
    counted = {row["status"]: row["rows"] for row in rows}
    return {status: counted.get(status, 0) for status in Example.Status.values}


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """How many rows in which state, how long they are, how the labels are balanced. Rejected ones are not measured.

    `is_sample`: lengths and labels come from some of the rows; a frozen version's report measures all.
    """
    counts = count_by_status(dataset)
    total = sum(counts.values())
    rows = Example.objects.filter(dataset=dataset).exclude(status=Example.Status.REJECTED)
    every = -(-total // MEASURED_ROWS)
    if every > 1:
        rows = rows.annotate(place=F("pk") % every).filter(place=0)
    measured = list(rows.order_by().values_list("length", "label"))
    with_findings = Example.objects.filter(dataset=dataset).exclude(findings={})
    labels = measure_labels(label for _, label in measured if label)
    return {
        "counts": counts,
        "total": total,
        "with_findings": with_findings.count() if every <= 1 else _count_findings(dataset),
        "lengths": asdict(measure_lengths(length for length, _ in measured)),
        "labels": labels.counts,
        "majority_share": labels.majority_share,
        "warnings": [problem.message for problem in labels.warnings],
        "is_sample": every > 1,
    }


def list_labels(dataset: Dataset) -> list[str]:
    """Those in use, the most frequent first."""
    rows = Example.objects.filter(dataset=dataset).exclude(label="").values("label")
    return list(rows.annotate(rows=Count("pk")).order_by("-rows", "label").values_list("label", flat=True)[:MAX_LABELS])


def _count_findings(dataset: Dataset) -> int:
    """As the imports counted them: the rows themselves are too many to look through for a page."""
    imports: Sequence[dict[str, int]] = list(dataset.imports.values_list("findings", flat=True))
    return sum(max(findings.values(), default=0) for findings in imports)


def _take(rows: QuerySet[Row], limit: int) -> tuple[list[Row], bool]:
    limit = max(1, min(limit, MAX_PAGE_SIZE))
    items = list(rows[: limit + 1])
    return items[:limit], len(items) > limit


def _bounded(number: int) -> int:
    """What no column can hold is simply nobody's."""
    return max(0, min(number, MAX_ID))


def _one_of(value: str, known: Sequence[str], name: str) -> str:
    if value not in known:
        raise InvalidError(f"The {name} is one of {', '.join(known)}.")
    return value


def _as_stored(text: str) -> str:
    """Text as it stands in a stored JSON document: SQLite keeps what Django wrote, PostgreSQL its own form."""
    return json.dumps(text, ensure_ascii=connection.vendor == "sqlite")[1:-1]
