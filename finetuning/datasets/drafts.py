"""Examples on their way into a dataset: measured, scanned, and stored once each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from chat.errors import InvalidError, NotFoundError
from finetuning import formats
from finetuning.datasets.polite import politely
from finetuning.formats.measures import get_label, measure_length
from finetuning.models import Dataset, DatasetImport, Example
from finetuning.scanning import scan_example

Origin = Example.Origin


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
    for batch in politely(drafts):
        settle_kind(dataset, batch[0].example.kind)
        rows = [to_row(draft, dataset=dataset, source_import=source_import, is_approved=is_approved) for draft in batch]
        with transaction.atomic():
            counts += store_rows(dataset, rows)
            touch(dataset)
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


def to_row(
    draft: Draft,
    *,
    dataset: Dataset,
    source_import: DatasetImport | None,
    is_approved: bool,
    now: datetime | None = None,
) -> Example:
    """Unsaved. Raises WrongKindError."""
    example = draft.example
    check_kind(dataset, example.kind)
    return Example(
        dataset=dataset,
        status=Example.Status.APPROVED if is_approved else Example.Status.PENDING,
        group=draft.group[:200],
        origin=draft.origin,
        source_import=source_import,
        line=draft.line,
        contributor_id=draft.contributor_id,
        conversation_id=draft.conversation_id,
        message_id=draft.message_id,
        model_version_id=draft.model_version_id,
        created_at=now or timezone.now(),
        **describe(example),
    )


def describe(example: formats.Example) -> dict[str, object]:
    """The columns that follow from what an example says."""
    return {
        "content": example.to_dict(),
        "content_hash": example.content_hash(),
        "label": get_label(example)[:200],
        "length": measure_length(example),
        "findings": {kind.value: count for kind, count in scan_example(example).items()},
    }


def store_rows(dataset: Dataset, rows: list[Example]) -> Counts:
    """Those the dataset does not hold yet; call it in a transaction, which it makes wait for others of this dataset."""
    if not Dataset.objects.select_for_update().filter(pk=dataset.pk, deleted_at=None).exists():
        raise NotFoundError("The dataset was deleted.")
    fresh = {row.content_hash: row for row in reversed(rows)}  # of equal rows the first
    stored = Example.objects.filter(dataset=dataset, content_hash__in=list(fresh))
    for content_hash in stored.values_list("content_hash", flat=True):
        del fresh[content_hash]
    added = [row for row in rows if fresh.get(row.content_hash) is row]
    Example.objects.bulk_create(added)
    return Counts(len(added), len(rows) - len(added), Counter(kind for row in added for kind in row.findings))


def touch(dataset: Dataset) -> None:
    Dataset.objects.filter(pk=dataset.pk).update(updated_at=timezone.now())
