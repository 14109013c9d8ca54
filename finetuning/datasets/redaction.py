"""Taking a person's rows out of a frozen version, for somebody who has withdrawn. The one change a version knows."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from finetuning.datasets.folders import SPLITS, dataset_lock
from finetuning.datasets.version_rows import hash_files, split_path, write_durably
from finetuning.models import DatasetVersion, VersionContributor

log = structlog.get_logger(__name__)


def redact_version(
    version: DatasetVersion, *, contributor_id: int | None = None, conversation_ids: Collection[UUID] = ()
) -> int:
    """Rewrites the files without the rows of that person or of those conversations; how many rows went.

    Blocks while the version is being frozen. Safe to repeat after a crash: counts follow from the files.
    """
    with dataset_lock(version.dataset_id, wait=True):
        version.refresh_from_db()
        if version.status != DatasetVersion.Status.READY:
            return 0
        gone = {str(conversation_id) for conversation_id in conversation_ids}
        counts = {split: _rewrite(split_path(version, split), contributor_id, gone) for split in SPLITS}
        removed = version.rows - sum(counts.values())
        if removed:
            _record(version, counts, removed)
        _forget_contributors(version, contributor_id, conversation_ids)
    version.refresh_from_db()
    return removed


def _rewrite(path: Path, contributor_id: int | None, conversation_ids: set[str]) -> int:
    """How many rows stay. The file is replaced only when one goes."""
    kept, dropped = 0, 0
    fresh = path.with_suffix(".new")
    with path.open("rb") as lines, fresh.open("wb") as stream:
        for line in lines:
            row = json.loads(line)
            is_theirs = contributor_id is not None and row["contributor"] == contributor_id
            if is_theirs or row["conversation"] in conversation_ids:
                dropped += 1
            else:
                kept += 1
                stream.write(line)
        write_durably(stream)
    if dropped:
        os.replace(fresh, path)  # noqa: PTH105
    else:
        fresh.unlink()
    return kept


def _record(version: DatasetVersion, counts: dict[str, int], removed: int) -> None:
    content_hash = hash_files(version)
    DatasetVersion.objects.filter(pk=version.pk).update(
        rows=sum(counts.values()),
        counts=counts,
        content_hash=content_hash,
        redacted_at=timezone.now(),
        redacted_rows=F("redacted_rows") + removed,
    )
    log.info("version_redacted", version_id=version.pk, rows=removed)


def _forget_contributors(
    version: DatasetVersion, contributor_id: int | None, conversation_ids: Collection[UUID]
) -> None:
    theirs = Q(conversation_id__in=list(conversation_ids))
    if contributor_id is not None:
        theirs |= Q(contributor_id=contributor_id)
    with transaction.atomic():
        VersionContributor.objects.filter(theirs, version=version).delete()
