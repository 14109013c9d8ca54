"""Clears what people took back: consent withdrawn, a conversation deleted or kept out, an account that is gone.

Every step can be repeated, and what a build or a freeze that was under way slips in is found the next minute.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from django.db import transaction
from django.db.models import Exists, OuterRef, Sum
from django.utils import timezone

from chat.errors import BusyError, InvalidError, NotFoundError
from config.app_settings import get_settings
from config.file_lock import file_lock
from finetuning.conversations.examples import withdrawn_rows
from finetuning.conversations.taken_back import drop_withdrawn_answers, hold
from finetuning.datasets.freezing import freeze_now
from finetuning.datasets.redaction import redact_version
from finetuning.datasets.review import delete_examples
from finetuning.jobs.folders import EVALUATION, LOG, PREFLIGHT, RUN, job_folder
from finetuning.models import (
    Dataset,
    DatasetVersion,
    Evaluation,
    EvaluationContributor,
    Example,
    FineTuningJob,
    Lineage,
    VersionContributor,
    Withdrawal,
)

log = structlog.get_logger(__name__)

NOTES = "Cut by itself: people took rows of the version before back."
QUOTING = ("unexpected", "crashed")  # failures that are told by what the process printed, which may quote rows
FORGOTTEN = "It failed. What it printed is removed, because people took rows of its data back."


@dataclass
class Cleared:
    """What one run did."""

    examples: int = 0
    redacted: list[DatasetVersion] = field(default_factory=list)
    flagged: int = 0
    cut: list[DatasetVersion] = field(default_factory=list)


def clear_withdrawn() -> Cleared:
    """Nothing where nothing was taken back. One at a time: a second call leaves it to the first."""
    cleared = Cleared()
    with _turn() as is_mine:
        if is_mine:
            cleared.examples = delete_examples(withdrawn_rows(Example.objects.all()))
            _forget_answers()
            cleared.redacted = [version for version in _tainted_versions() if _try_to_redact(version)]
            cleared.flagged = _flag_lineages()
            cleared.cut = [fresh for dataset in _incomplete_datasets() if (fresh := _cut(dataset))]
    if cleared != Cleared():
        versions = {"redacted": len(cleared.redacted), "cut": len(cleared.cut)}
        log.info("withdrawn_cleared", examples=cleared.examples, flagged=cleared.flagged, **versions)
    return cleared


@contextmanager
def _turn() -> Iterator[bool]:
    folder = get_settings().data_dir
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / "withdrawal.lock") as is_mine:
        yield is_mine


def _tainted_versions() -> list[DatasetVersion]:
    """Not those that are being frozen: they are asked about once they are ready."""
    taken_back = withdrawn_rows(VersionContributor.objects.filter(version=OuterRef("pk")))
    return list(DatasetVersion.objects.filter(Exists(taken_back), status=DatasetVersion.Status.READY))


def _try_to_redact(version: DatasetVersion) -> bool:
    """A version whose files cannot be read or written is tried again, and the others do not wait for it."""
    try:
        _redact(version)
    except (OSError, ValueError):
        log.exception("version_not_redacted", version_id=version.pk)
        return False
    return True


def _redact(version: DatasetVersion) -> None:
    """First the trace, the files last: they are what a repetition goes by."""
    theirs = list(withdrawn_rows(VersionContributor.objects.filter(version=version)))
    with transaction.atomic():
        hold(version)  # a check that is just being kept is seen below, or sees this
        for row in theirs:
            Withdrawal.objects.get_or_create(
                version=version,
                contributor_id=row.contributor_id,
                conversation_id=row.conversation_id,
                defaults={"rows": row.rows, "corrections": row.corrections},
            )
    _forget_words(version)
    conversations = [row.conversation_id for row in theirs if row.conversation_id]
    redact_version(version, conversation_ids=conversations)
    for contributor_id in {row.contributor_id for row in theirs if not row.conversation_id}:
        redact_version(version, contributor_id=contributor_id)


def _forget_words(version: DatasetVersion) -> None:
    """What trainings show of its rows: samples in the reports, what a crash printed."""
    for job in FineTuningJob.objects.filter(dataset_version=version).only("preflight", "owner_token", "error_code"):
        if job.preflight and job.preflight.get("samples"):
            job.preflight["samples"] = []
            job.save(update_fields=["preflight"])
        if job.owner_token is None:  # else its owner clears them away
            for name in (PREFLIGHT, EVALUATION):
                shutil.rmtree(job_folder(job.pk) / name, ignore_errors=True)
            (job_folder(job.pk) / RUN / LOG).unlink(missing_ok=True)
        if job.error_code in QUOTING:
            FineTuningJob.objects.filter(pk=job.pk).update(error_message=FORGOTTEN, error_details={})
            job.events.filter(code="failed").update(message=FORGOTTEN)


def _forget_answers() -> None:
    """Questions that were asked side by side: of whatever version, out of its data or not."""
    asked = withdrawn_rows(EvaluationContributor.objects.all()).values("evaluation_id")
    for pk in Evaluation.objects.filter(pk__in=asked).values_list("pk", flat=True):
        with transaction.atomic():
            evaluation = Evaluation.objects.select_for_update().filter(pk=pk).first()
            if evaluation is not None and drop_withdrawn_answers(evaluation):
                evaluation.save(update_fields=["answers"])


def _flag_lineages() -> int:
    """Every model version that has learned from rows since taken back, itself or in what it was trained from.

    Counted anew each time, so it catches a training that began before the withdrawal and has ended after it.
    """
    if not Withdrawal.objects.exists():
        return 0
    seen: dict[int, int] = {}
    flagged = 0
    for lineage in Lineage.objects.select_related("job").order_by(
        "created_at", "id"
    ):  # a base before what is made of it
        rows = _count_seen(lineage) + seen.get(lineage.base_version_id, 0)
        seen[lineage.version_id] = rows
        if rows > lineage.withdrawn_rows:
            Lineage.objects.filter(pk=lineage.pk).update(withdrawn_at=timezone.now(), withdrawn_rows=rows)
            flagged += 1
    return flagged


def _count_seen(lineage: Lineage) -> int:
    """Rows that were taken back after its training had begun."""
    rows = Withdrawal.objects.filter(version=lineage.dataset_version_id, withdrawn_at__gt=learned_at(lineage))
    return rows.aggregate(total=Sum("rows"))["total"] or 0


def learned_at(lineage: Lineage) -> datetime:
    """When its data was read."""
    return (lineage.job and lineage.job.started_at) or lineage.created_at


def _incomplete_datasets() -> list[Dataset]:
    """Those whose newest version has lost rows; one that failed, or is being frozen, is newer and is left alone."""
    newest = DatasetVersion.objects.filter(dataset=OuterRef("dataset"), number__gt=OuterRef("number"))
    lost = DatasetVersion.objects.filter(~Exists(newest), redacted_at__isnull=False, dataset__deleted_at=None)
    return [version.dataset for version in lost.select_related("dataset")]


def _cut(dataset: Dataset) -> DatasetVersion | None:
    """The rows that are left, split as before; None when too few are left for a version."""
    last = dataset.versions.order_by("-number").first()
    try:
        return freeze_now(dataset, user=None, seed=last.seed, shares=last.shares, notes=NOTES)
    except (InvalidError, BusyError, NotFoundError) as error:
        log.info("version_not_cut", dataset_id=dataset.pk, reason=error.message)
        return None
