"""What changed between two frozen versions of a dataset, with some of the rows to look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from chat.errors import InvalidError
from finetuning.datasets.folders import SPLITS
from finetuning.datasets.selectors import require_ready
from finetuning.datasets.version_rows import iterate_hashes, read_rows
from finetuning.formats import hashing
from finetuning.models import DatasetVersion

SHOWN_ROWS = 20
HASH_CHARS = 32  # half of a hash tells a million rows apart


@dataclass(frozen=True, slots=True)
class VersionDiff:
    """`added_rows` and `removed_rows` are the first of those, as `read_rows` gives them, each with its `split`."""

    old: DatasetVersion
    new: DatasetVersion
    added: int
    removed: int
    kept: int
    moved: int  # rows in both, in another split
    is_reordered: bool
    added_rows: list[dict[str, Any]]
    removed_rows: list[dict[str, Any]]


def diff_versions(old: DatasetVersion, new: DatasetVersion) -> VersionDiff:
    """Raises InvalidError for versions of two datasets, or for one that is not ready."""
    if old.dataset_id != new.dataset_id:
        raise InvalidError("Only versions of the same dataset can be compared.")
    before, after = _load(require_ready(old)), _load(require_ready(new))
    found = hashing.diff_versions(list(before), list(after))
    return VersionDiff(
        old=old,
        new=new,
        added=len(found.added),
        removed=len(found.removed),
        kept=found.kept,
        moved=sum(split != after.get(content_hash, split) for content_hash, split in before.items()),
        is_reordered=found.is_reordered,
        added_rows=list(_pick(new, set(found.added[:SHOWN_ROWS]))),
        removed_rows=list(_pick(old, set(found.removed[:SHOWN_ROWS]))),
    )


def _load(version: DatasetVersion) -> dict[str, str]:
    return {content_hash[:HASH_CHARS]: split for _, content_hash, split in iterate_hashes(version)}


def _pick(version: DatasetVersion, wanted: set[str]) -> Iterator[dict[str, Any]]:
    """Their rows, in the order of the ids."""
    if not wanted:
        return
    rows = (
        row | {"split": split}
        for split in SPLITS
        for row in read_rows(version, split)
        if row["hash"][:HASH_CHARS] in wanted
    )
    yield from sorted(islice(rows, len(wanted)), key=lambda row: row["id"])
