"""Examples on their way into a dataset: measured, scanned, and stored once each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from uuid import UUID

from django.db import connection, models, transaction
from django.utils import timezone

from chat.errors import InvalidError, NotFoundError
from finetuning import formats
from finetuning.datasets.polite import politely
from finetuning.formats.measures import get_label, measure_length
from finetuning.models import Dataset, DatasetImport, Example
from finetuning.scanning import scan_example

Origin = Example.Origin
FIELDS = {str(field.column): field for field in Example._meta.concrete_fields if not field.primary_key}
COLUMNS = tuple(FIELDS)
CONVERTED_COLUMNS = frozenset(
    column
    for column, field in FIELDS.items()
    if isinstance(field, models.JSONField | models.UUIDField | models.DateTimeField | models.ForeignKey)
)


@dataclass(frozen=True, slots=True)
class Draft:
    """An example that is not stored yet, and where it comes from."""

    example: formats.Example
    origin: Origin = Origin.FILE
    line: int = 0
    group: str = ""
    contributor_id: int | None = None
    conversation_id: UUID | None = None
    message_id: UUID | None = None
    model_version_id: int | None = None


@dataclass(frozen=True, slots=True)
class NewRow:
    """`values` in the order of COLUMNS, as the database takes them."""

    content_hash: str
    findings: tuple[str, ...]
    values: list[Any]


@dataclass(slots=True)
class Counts:
    """`findings`: rows with personal data or secrets, by kind, among those added."""

    added: int = 0
    duplicates: int = 0
    findings: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.added + other.added, self.duplicates + other.duplicates, self.findings + other.findings)


class WrongKindError(InvalidError):
    """The rows are not of the kind that the dataset holds."""

    code = "wrong_kind"


def add_drafts(
    dataset: Dataset, drafts: Iterable[Draft], *, source_import: DatasetImport | None, is_approved: bool
) -> Counts:
    """Store what the dataset does not hold yet, a polite batch after the other. Raises WrongKindError."""
    counts = Counts()
    maker = RowMaker(dataset, source_import, is_approved=is_approved)
    for rows in politely(map(maker.make, drafts)):
        with transaction.atomic():
            counts += store_rows(dataset, rows)
            touch(dataset.pk)
    return counts


def settle_kind(dataset: Dataset, kind: str) -> None:
    """The first row decides what a dataset holds. Raises WrongKindError for a row of another kind."""
    if not dataset.kind:
        Dataset.objects.filter(pk=dataset.pk, kind="").update(kind=kind)
        dataset.refresh_from_db(fields=["kind"])
    check_kind(dataset, kind)


def check_kind(dataset: Dataset, kind: str) -> None:
    if dataset.kind and dataset.kind != kind:
        found, wanted = Dataset.Kind(kind).label.lower(), Dataset.Kind(dataset.kind).label.lower()
        raise WrongKindError(f"These are {found}, and “{dataset.name}” holds {wanted}. Put them into another dataset.")


class RowMaker:
    """Drafts made ready for one dataset: everything that can be done before the database is kept from others."""

    def __init__(self, dataset: Dataset, source_import: DatasetImport | None, *, is_approved: bool) -> None:
        self._dataset = dataset
        status = Example.Status.APPROVED if is_approved else Example.Status.PENDING
        self._common = _prepare(
            dataset_id=dataset.pk,
            source_import_id=source_import.pk if source_import else None,
            status=status.value,
            original=None,
            reviewed_by_id=None,
            reviewed_at=None,
            created_at=timezone.now(),
        )

    def make(self, draft: Draft) -> NewRow:
        """Raises WrongKindError."""
        settle_kind(self._dataset, draft.example.kind)
        described = describe(draft.example)
        own = _prepare(
            **described,
            group=draft.group[:200],
            origin=str(draft.origin),
            line=draft.line,
            contributor_id=draft.contributor_id,
            conversation_id=draft.conversation_id,
            message_id=draft.message_id,
            model_version_id=draft.model_version_id,
        )
        values = self._common | own
        return NewRow(described["content_hash"], tuple(described["findings"]), [values[name] for name in COLUMNS])


def _prepare(**values: Any) -> dict[str, Any]:
    """The values as the database takes them."""
    return {
        name: FIELDS[name].get_db_prep_save(value, connection) if name in CONVERTED_COLUMNS else value
        for name, value in values.items()
    }


def describe(example: formats.Example) -> dict[str, Any]:
    """The columns that follow from what an example says."""
    return {
        "content": example.to_dict(),
        "content_hash": example.content_hash(),
        "label": get_label(example)[:200],
        "length": measure_length(example),
        "findings": {kind.value: count for kind, count in scan_example(example).items()},
    }


def store_rows(dataset: Dataset, rows: list[NewRow]) -> Counts:
    """Those the dataset does not hold yet; call it in a transaction, which it makes wait for others of this dataset."""
    if not Dataset.objects.select_for_update().filter(pk=dataset.pk, deleted_at=None).exists():
        raise NotFoundError("The dataset was deleted.")
    fresh = {row.content_hash: row for row in reversed(rows)}  # of equal rows the first
    # Asked for an order, SQLite walks through all rows of the dataset instead of looking these up.
    stored = Example.objects.filter(dataset=dataset, content_hash__in=list(fresh)).order_by()
    for content_hash in stored.values_list("content_hash", flat=True):
        del fresh[content_hash]
    added = [row for row in rows if fresh.get(row.content_hash) is row]
    if added:
        with connection.cursor() as cursor:
            cursor.executemany(_insert(), [row.values for row in added])
    return Counts(len(added), len(rows) - len(added), Counter(kind for row in added for kind in row.findings))


@cache
def _insert() -> str:
    """In SQL: making it of model instances takes three times as long, and chat waits for as long as it takes."""
    quote = connection.ops.quote_name
    columns = ", ".join(quote(name) for name in COLUMNS)
    places = ", ".join(["%s"] * len(COLUMNS))
    return f"INSERT INTO {quote(Example._meta.db_table)} ({columns}) VALUES ({places})"  # noqa: S608


def touch(*dataset_ids: int) -> None:
    """Call it in the transaction that changes rows, and first where two of them could become equal unseen.

    It makes others of these datasets wait, freezing too, and only then asks for the time: until the transaction is
    kept no version begins that would be newer than `updated_at` and not hold the change.
    """
    datasets = Dataset.objects.filter(pk__in=dataset_ids)
    list(datasets.select_for_update().order_by("pk").values_list("pk"))
    datasets.update(updated_at=timezone.now())
