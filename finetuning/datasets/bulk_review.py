"""A decision about every row that matches: here and now for some, by a worker for so many that a page would wait."""

from __future__ import annotations

from collections.abc import Mapping

from django.db.models import QuerySet
from kombu.exceptions import OperationalError

from accounts.models import User
from chat.errors import BusyError, InvalidError
from config.celery import app
from finetuning.access import is_curator
from finetuning.datasets import review
from finetuning.datasets.selectors import filter_examples
from finetuning.models import Dataset, Example

AT_ONCE = 2000  # about a second
TASK = "finetuning.tasks.decide_about_rows"
ON_THE_PAGE = ("approve", "reject", "mask")


def decide_about_all(
    dataset: Dataset, *, action: str, filters: Mapping[str, str], up_to: int, user: User
) -> tuple[int, bool]:
    """From the review page. How many rows it is about, and whether it is done. Raises as `decide_about_matching`."""
    if action not in ON_THE_PAGE:
        raise InvalidError("Choose what to do with these rows.")
    return decide_about_matching(dataset, action=action, filters=filters, up_to=up_to, user=user)


def decide_about_matching(
    dataset: Dataset,
    *,
    action: str,
    filters: Mapping[str, str],
    user: User,
    up_to: int | None = None,
    label: str = "",
) -> tuple[int, bool]:
    """How many rows it changed and True, or how many a worker decides about and False.

    Rows after `up_to`, without it after the newest of this moment, came later and were not seen by anybody.
    Raises InvalidError, BusyError when no worker can be told.
    """
    up_to = _newest(dataset) if up_to is None else up_to
    rows = _find(dataset, filters, up_to)
    count = rows.count()
    if count <= AT_ONCE:
        return decide(rows, action, user=user, label=label), True
    if action == "relabel":
        for row in rows.select_related("dataset").order_by("pk")[:1]:
            review.check_label(row, label)  # a worker could tell nobody
    arguments = {"action": action, "filters": dict(filters), "up_to": up_to, "user_id": user.pk, "label": label}
    try:
        app.send_task(TASK, [dataset.pk], arguments, retry=False)
    except OperationalError as error:
        raise BusyError("No worker can be reached for so many rows. Nothing was changed; try again shortly.") from error
    return count, False


def decide_now(
    dataset_id: int, *, action: str, filters: Mapping[str, str], up_to: int, user_id: int, label: str = ""
) -> int:
    """The body of the task. Given twice it finds nothing left to do the second time."""
    dataset = Dataset.objects.filter(pk=dataset_id, deleted_at=None).first()
    user = User.objects.filter(pk=user_id).first()
    if dataset is None or user is None or not is_curator(user):
        return 0
    return decide(_find(dataset, filters, up_to), action, user=user, label=label)


def decide(rows: QuerySet[Example], action: str, *, user: User, label: str = "") -> int:
    """How many rows it changed. Raises InvalidError."""
    match action:
        case "approve":
            return review.approve(rows, user=user)
        case "reject":
            return review.reject(rows, user=user)
        case "reopen":
            return review.reopen(rows, user=user)
        case "mask":
            return review.mask_examples(rows, user=user)
        case "relabel":
            return review.relabel(rows, label, user=user)
        case "delete":
            return review.delete_examples(rows)
    raise InvalidError("Choose what to do with these rows.")


def _newest(dataset: Dataset) -> int:
    return dataset.examples.order_by("pk").values_list("pk", flat=True).last() or 0


def _find(dataset: Dataset, filters: Mapping[str, str], up_to: int) -> QuerySet[Example]:
    return filter_examples(dataset, **filters).filter(pk__lte=up_to)
