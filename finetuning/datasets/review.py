"""What people decide about examples: approve, reject, edit, relabel, mask. Who did it and when stays with the row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts.models import User
from chat.errors import InvalidError
from finetuning import formats
from finetuning.datasets.drafts import describe, touch
from finetuning.datasets.polite import BATCH_ROWS, Pace
from finetuning.formats import Kind, check_example, example_from_dict
from finetuning.formats.measures import DESIRABLE, UNDESIRABLE
from finetuning.models import Dataset, Example
from finetuning.scanning import mask_example

Status = Example.Status
DECIDED_AT_ONCE = 300  # a column or two of each row
CHANGED_FIELDS = (
    "content",
    "content_hash",
    "label",
    "length",
    "findings",
    "original",
    "reviewed_by",
    "reviewed_at",
)


def approve(examples: QuerySet[Example], *, user: User | None) -> int:
    return _decide(examples, Status.APPROVED, user)


def reject(examples: QuerySet[Example], *, user: User | None) -> int:
    return _decide(examples, Status.REJECTED, user)


def reopen(examples: QuerySet[Example], *, user: User | None) -> int:
    """Back into the queue."""
    return _decide(examples, Status.PENDING, user)


def edit_example(example: Example, content: Mapping[str, Any], *, user: User | None) -> Example:
    """Checked as if it had been imported; the first version of it is kept beside it. Raises InvalidError."""
    dataset = example.dataset
    checked, problems = check_example(_kind(dataset), dict(content))
    if checked is None:
        raise InvalidError(problems[-1].message, code_of_row=str(problems[-1].code))
    with transaction.atomic():
        touch(dataset.pk)
        row = Example.objects.filter(pk=example.pk).first()
        if row is None:
            raise InvalidError("This row was deleted meanwhile.")
        if _is_taken(dataset, checked.content_hash(), row):
            raise InvalidError("Another row of this dataset says exactly this already.")
        _change(row, checked, user).save(update_fields=CHANGED_FIELDS)
    return row


def relabel(examples: QuerySet[Example], label: str, *, user: User | None) -> int:
    """How many rows it changed. Raises InvalidError for rows that have no labels, or an unknown one."""
    return _change_each(examples, lambda example: _with_label(example, label), user=user)


def mask_examples(examples: QuerySet[Example], *, user: User | None) -> int:
    """Puts [EMAIL] and the like in the place of what looks like personal data or a secret; how many rows it changed."""
    return _change_each(examples.exclude(findings={}), mask_example, user=user)


def delete_examples(examples: QuerySet[Example]) -> int:
    """Frozen versions keep what they hold; see `redaction` for those."""
    removed = 0
    for ids in _in_ids(examples):
        with transaction.atomic():
            removed += _hold(ids).delete()[0]
    return removed


def _decide(examples: QuerySet[Example], status: Status, user: User | None) -> int:
    decided = 0
    for ids in _in_ids(examples.exclude(status=status), DECIDED_AT_ONCE):
        with transaction.atomic():
            decided += _hold(ids).update(status=status, reviewed_by=user, reviewed_at=timezone.now())
    return decided


def _hold(ids: Collection[int]) -> QuerySet[Example]:
    """These rows, to be changed in this transaction: from its end on every version before it is out of date."""
    rows = Example.objects.filter(pk__in=ids)
    touch(*rows.order_by().values_list("dataset", flat=True).distinct())
    return rows


def _in_ids(examples: QuerySet[Example], size: int = BATCH_ROWS) -> Iterator[list[int]]:
    """The ids in polite batches. By position, so that rows which no longer fit the query are not looked for again."""
    pace, last = Pace(), 0
    rows = examples.order_by("pk")
    while ids := list(rows.filter(pk__gt=last).values_list("pk", flat=True)[:size]):
        pace.wait()
        yield ids
        pace.ended()
        last = ids[-1]


def _change_each(
    examples: QuerySet[Example], change: Callable[[formats.Example], formats.Example], *, user: User | None
) -> int:
    changed = 0
    for ids in _in_ids(examples):
        with transaction.atomic():
            rows = list(_hold(ids).select_related("dataset").order_by("pk"))
            changed += sum(_change_row(row, change, user) for row in rows)
    return changed


def _change_row(row: Example, change: Callable[[formats.Example], formats.Example], user: User | None) -> bool:
    before = example_from_dict(_kind(row.dataset), row.content)
    after = change(before)
    if after == before:
        return False
    if _is_taken(row.dataset, after.content_hash(), row):
        row.delete()  # it became equal to another row, which stays
    else:
        _change(row, after, user).save(update_fields=CHANGED_FIELDS)
    return True


def _change(row: Example, example: formats.Example, user: User | None) -> Example:
    if row.original is None:
        row.original = row.content
    for name, value in describe(example).items():
        setattr(row, name, value)
    row.reviewed_by, row.reviewed_at = user, timezone.now()
    return row


def check_label(example: Example, label: str) -> None:
    """Raises InvalidError for a row that has no label, or an unknown one."""
    _with_label(example_from_dict(_kind(example.dataset), example.content), label)


def _with_label(example: formats.Example, label: str) -> formats.Example:
    if isinstance(example, formats.ClassificationExample):
        checked, problems = check_example("classification", {"text": example.text, "label": label})
    elif isinstance(example, formats.KtoExample):
        words = {DESIRABLE: True, UNDESIRABLE: False}
        checked, problems = check_example("kto", example.to_dict() | {"label": words.get(label, label)})
    else:
        raise InvalidError("Only labelled texts and rated answers have a label.")
    if checked is None:
        raise InvalidError(problems[-1].message)
    return checked


def _is_taken(dataset: Dataset, content_hash: str, row: Example) -> bool:
    return Example.objects.filter(dataset=dataset, content_hash=content_hash).exclude(pk=row.pk).exists()


def _kind(dataset: Dataset) -> Kind:
    return dataset.kind  # type: ignore[return-value]
