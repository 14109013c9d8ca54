"""A decision about every row that matches: here and now for some, by a worker for so many that a page would wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from django.db.models import QuerySet
from kombu.exceptions import OperationalError

from accounts.models import User
from chat.errors import BusyError, InvalidError
from config.celery import app
from finetuning.datasets.review import approve, mask_examples, reject
from finetuning.datasets.selectors import filter_examples
from finetuning.models import Dataset, Example

AT_ONCE = 2000  # about a second
TASK = "finetuning.tasks.decide_about_rows"
ACTIONS: Mapping[str, Callable[..., int]] = {
    "approve": approve,
    "reject": reject,
    "mask": mask_examples,
}


def decide_about_all(
    dataset: Dataset, *, action: str, filters: Mapping[str, str], up_to: int, user: User
) -> tuple[int, bool]:
    """How many rows it is about, and whether it is done. Rows after `up_to` came later and were not seen by anybody.

    Raises InvalidError, BusyError when no worker can be told.
    """
    if action not in ACTIONS:
        raise InvalidError("Choose what to do with these rows.")
    rows = _find(dataset, filters, up_to)
    count = rows.count()
    if count <= AT_ONCE:
        return ACTIONS[action](rows, user=user), True
    arguments = {"action": action, "filters": dict(filters), "up_to": up_to, "user_id": user.pk}
    try:
        app.send_task(TASK, [dataset.pk], arguments, retry=False)
    except OperationalError as error:
        raise BusyError("No worker can be reached for so many rows. Nothing was changed; try again shortly.") from error
    return count, False


def decide_now(dataset_id: int, *, action: str, filters: Mapping[str, str], up_to: int, user_id: int) -> int:
    """The body of the task. Given twice it finds nothing left to do the second time."""
    dataset = Dataset.objects.filter(pk=dataset_id, deleted_at=None).first()
    user = User.objects.filter(pk=user_id, is_active=True).first()
    if dataset is None or user is None:
        return 0
    return ACTIONS[action](_find(dataset, filters, up_to), user=user)


def _find(dataset: Dataset, filters: Mapping[str, str], up_to: int) -> QuerySet[Example]:
    return filter_examples(dataset, **filters).filter(pk__lte=up_to)
