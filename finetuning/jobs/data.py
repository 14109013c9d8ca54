"""Which frozen version a job is trained on, and how many rows are new since an earlier one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chat.errors import InvalidError
from finetuning.datasets import NothingNewError, freeze, is_up_to_date, newest_version
from finetuning.datasets.freezing import approved_rows
from finetuning.datasets.version_rows import iterate_hashes
from finetuning.models import Dataset, DatasetVersion

if TYPE_CHECKING:
    from accounts.models import User

ROWS_AT_ONCE = 2_000


def ensure_version(dataset: Dataset, *, user: User | None) -> DatasetVersion:
    """The newest version when it holds what is approved now, else a new one that a worker freezes.

    Raises InvalidError: too few rows, a dataset that was deleted.
    """
    if dataset.deleted_at is not None:
        raise InvalidError(f"The dataset {dataset.name} was deleted.")
    freezing = dataset.versions.filter(status=DatasetVersion.Status.FREEZING).order_by("-number").first()
    if freezing is not None:
        return freezing
    newest = newest_version(dataset)
    if newest is not None and is_up_to_date(newest):
        return newest
    try:
        return freeze(dataset, user=user)
    except NothingNewError as error:
        return error.version


def count_new(dataset: Dataset, since: DatasetVersion | None) -> int:
    """How many approved rows this version does not hold; without a version all of them."""
    rows = approved_rows(dataset)
    if since is None or not since.folder:
        return rows.count()
    known = {row_id for row_id, _, _ in iterate_hashes(since)}
    ids = rows.values_list("pk", flat=True).order_by("pk")
    return sum(pk not in known for pk in ids.iterator(chunk_size=ROWS_AT_ONCE))
