"""Freezing: the approved rows of one moment become a version, with splits, a hash and a report. In a task, or here."""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import structlog
from django.db import DatabaseError, transaction
from django.db.models import Max, QuerySet

from accounts.models import User
from chat.errors import BusyError, InvalidError, NotFoundError
from finetuning.datasets.dispatch import send
from finetuning.datasets.folders import SPLITS, dataset_folder, dataset_lock
from finetuning.datasets.imports import Status as ImportStatus
from finetuning.datasets.polite import politely
from finetuning.datasets.snapshots import Snapshot, write_snapshot
from finetuning.formats.splits import DEFAULT_SHARES, TRAIN
from finetuning.models import Dataset, DatasetImport, DatasetVersion, Example, VersionContributor

log = structlog.get_logger(__name__)
Status = DatasetVersion.Status
MIN_ROWS = 10  # OpenAI's own minimum, held-out ones included; fewer teach nothing
DEFAULT_SEED = 42
MAX_SEED = 2**31 - 1
COMPARED_AT_ONCE = 20_000


class _TooFewError(Exception):
    pass


class NothingNewError(BusyError):
    """The newest version holds exactly these rows. `version` is it."""

    code = "unchanged"

    def __init__(self, version: DatasetVersion) -> None:
        sentence = f"Version {version.number} holds exactly these rows in these splits, so there is nothing to freeze."
        super().__init__(sentence, version=version.number)
        self.version = version


def freeze(
    dataset: Dataset,
    *,
    user: User | None,
    seed: int = DEFAULT_SEED,
    shares: Mapping[str, float] | None = None,
    notes: str = "",
) -> DatasetVersion:
    """A new version that a worker fills. Raises InvalidError (too few rows, shares that cannot be), BusyError.

    NothingNewError, when the newest version holds exactly these rows; of a large dataset the version itself says it.
    """
    newest = newest_version(dataset)
    is_same = newest is not None and newest.seed == seed and newest.shares == _shares(shares)
    if newest is not None and is_same and newest.rows <= COMPARED_AT_ONCE and is_up_to_date(newest):
        raise NothingNewError(newest)
    version = _begin(dataset, user=user, seed=seed, shares=shares, notes=notes)
    send("freeze_version", version.pk)
    return version


def freeze_now(
    dataset: Dataset,
    *,
    user: User | None,
    seed: int = DEFAULT_SEED,
    shares: Mapping[str, float] | None = None,
    notes: str = "",
) -> DatasetVersion:
    """A version that is ready; the newest one when it holds exactly these rows. Blocks. Raises as `freeze`."""
    version = _begin(dataset, user=user, seed=seed, shares=shares, notes=notes)
    with dataset_lock(dataset.pk, wait=True):
        if _is_freezing(version.pk):  # else a worker found it before we held the lock
            try:
                _fill(version)
            except NothingNewError as error:
                version.delete()
                return error.version
    version.refresh_from_db()
    if version.status == Status.FAILED:
        raise InvalidError(version.error_message)
    return version


def freeze_version(version_id: int) -> None:
    """The body of the task. Does nothing for a version that is frozen, or that another process is freezing."""
    version = DatasetVersion.objects.filter(pk=version_id, status=Status.FREEZING).first()
    if version is None:
        return
    with dataset_lock(version.dataset_id, wait=False) as is_mine:
        if is_mine and _is_freezing(version_id):
            try:
                _fill(version)
            except NothingNewError as error:
                _fail(version, error.message)


def _is_freezing(version_id: int) -> bool:
    return DatasetVersion.objects.filter(pk=version_id, status=Status.FREEZING).exists()


def approved_rows(dataset: Dataset) -> QuerySet[Example]:
    """What a version would hold now. An import that has not succeeded (yet) may still take its rows back."""
    unfinished = DatasetImport.objects.filter(dataset=dataset).exclude(status=ImportStatus.SUCCEEDED)
    ids = list(unfinished.values_list("pk", flat=True))
    rows = Example.objects.filter(dataset=dataset, status=Example.Status.APPROVED)
    return rows.exclude(source_import__in=ids) if ids else rows


def ensure_version(dataset: Dataset, *, user: User | None) -> DatasetVersion:
    """A version with what the dataset holds now: the newest, the one being frozen, or a new one that a worker fills.

    Raises InvalidError.
    """
    freezing = DatasetVersion.objects.filter(dataset=dataset, status=Status.FREEZING).first()
    if freezing is not None:
        return freezing
    newest = newest_version(dataset)
    if newest is not None and is_up_to_date(newest):
        return newest
    return freeze(dataset, user=user)


def newest_version(dataset: Dataset) -> DatasetVersion | None:
    """The newest that is ready and whole."""
    ready = DatasetVersion.objects.filter(dataset=dataset, status=Status.READY, redacted_at=None)
    return ready.select_related("dataset").order_by("-number").first()


def is_up_to_date(version: DatasetVersion) -> bool:
    """Whether freezing its dataset again, in the same way, would give the same rows in the same splits."""
    if version.status != Status.READY or version.redacted_at is not None:
        return False
    if version.dataset.updated_at < version.created_at:
        return True
    rows = approved_rows(version.dataset)
    if rows.count() != version.rows:
        return False
    return write_snapshot(rows, None, seed=version.seed, shares=version.shares).content_hash == version.content_hash


def _begin(
    dataset: Dataset, *, user: User | None, seed: int, shares: Mapping[str, float] | None, notes: str
) -> DatasetVersion:
    chosen = _shares(shares)
    if not 0 <= seed <= MAX_SEED:
        raise InvalidError(f"A seed is a whole number from 0 to {MAX_SEED}.")
    _check_rows(dataset)
    with transaction.atomic():
        locked = Dataset.objects.select_for_update().filter(pk=dataset.pk, deleted_at=None).first()
        if locked is None:
            raise NotFoundError("There is no such dataset.")
        versions = DatasetVersion.objects.filter(dataset=dataset)
        if running := versions.filter(status=Status.FREEZING).first():
            raise BusyError(f"Version {running.number} is being frozen at this moment.")
        number = (versions.aggregate(newest=Max("number"))["newest"] or 0) + 1
        return DatasetVersion.objects.create(
            dataset=locked,
            number=number,
            kind=locked.kind,
            seed=seed,
            shares=chosen,
            folder=f"datasets/{dataset.pk}/v{number}",
            notes=notes.strip(),
            created_by=user,
        )


def _shares(shares: Mapping[str, float] | None) -> dict[str, float]:
    return check_shares(DEFAULT_SHARES if shares is None else shares)


def _check_rows(dataset: Dataset) -> None:
    rows = len(approved_rows(dataset).values_list("pk")[:MIN_ROWS])
    if rows < MIN_ROWS:
        raise InvalidError(_too_few(rows))


def _too_few(rows: int) -> str:
    return f"A version needs at least {MIN_ROWS} approved rows, and this dataset has {rows}."


def check_shares(shares: Mapping[str, float]) -> dict[str, float]:
    """Raises InvalidError."""
    for split, share in shares.items():
        if split not in SPLITS or split == TRAIN:
            raise InvalidError("Shares are given for validation and test; training gets the rest.")
        if type(share) not in (int, float) or not math.isfinite(share) or share < 0:
            raise InvalidError("A share is a number from 0 to 1, such as 0.1.")
    if sum(shares.values()) > 0.9:
        raise InvalidError("Leave at least a tenth of the rows for training.")
    return {split: float(share) for split, share in shares.items()}


def _fill(version: DatasetVersion) -> None:
    """Under the dataset's lock. Raises NothingNewError; other faults end in the version itself."""
    folder = dataset_folder(version.dataset_id)
    work, final = folder / f".v{version.number}", folder / f"v{version.number}"
    try:
        with _fresh_folder(work):
            snapshot = write_snapshot(
                approved_rows(version.dataset), work, seed=version.seed, shares=version.shares, kind=version.kind
            )
            _check_new(version, snapshot)
            _keep_contributors(version, snapshot)
            _put_in_place(work, final)
            _finish(version, snapshot)
    except _TooFewError as error:
        _fail(version, str(error))
    except OSError as error:
        _fail(version, _sentence(error))
    except DatabaseError as error:
        _fail(version, f"The database could not be read: {error}.")
        raise


@contextmanager
def _fresh_folder(path: Path) -> Iterator[None]:
    """Empty when it begins, gone when it ends."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _check_new(version: DatasetVersion, snapshot: Snapshot) -> None:
    if snapshot.rows < MIN_ROWS:
        raise _TooFewError(_too_few(snapshot.rows))
    newest = newest_version(version.dataset)
    if newest is None or newest.content_hash != snapshot.content_hash:
        return
    # After a version that has lost rows the next one is kept even if it repeats an older one: it takes its place.
    later = DatasetVersion.objects.filter(dataset=version.dataset_id, number__gt=newest.number)
    if not later.exclude(redacted_at=None).exists():
        raise NothingNewError(newest)


def _keep_contributors(version: DatasetVersion, snapshot: Snapshot) -> None:
    VersionContributor.objects.filter(version=version).delete()
    for batch in politely(snapshot.contributors.items()):
        VersionContributor.objects.bulk_create(
            VersionContributor(
                version=version,
                contributor_id=contributor,
                conversation_id=conversation,
                rows=counts.rows,
                corrections=counts.corrections,
            )
            for (contributor, conversation), counts in batch
        )


def _put_in_place(work: Path, final: Path) -> None:
    shutil.rmtree(final, ignore_errors=True)  # of an attempt that died between here and the row
    work.rename(final)


def _finish(version: DatasetVersion, snapshot: Snapshot) -> None:
    freezing = DatasetVersion.objects.filter(pk=version.pk, status=Status.FREEZING)
    freezing.update(
        status=Status.READY,
        content_hash=snapshot.content_hash,
        counts=snapshot.counts,
        rows=snapshot.rows,
        report=snapshot.report,
        error_message="",
    )
    log.info("version_frozen", dataset_id=version.dataset_id, number=version.number, rows=snapshot.rows)


def _fail(version: DatasetVersion, message: str) -> None:
    """Nothing of it stays: no withdrawal would look for words in a version that failed."""
    if not _is_freezing(version.pk):
        return
    shutil.rmtree(dataset_folder(version.dataset_id) / f"v{version.number}", ignore_errors=True)
    freezing = DatasetVersion.objects.filter(pk=version.pk, status=Status.FREEZING)
    freezing.update(status=Status.FAILED, error_message=message)
    VersionContributor.objects.filter(version=version).delete()


def _sentence(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full. Free some room and freeze again."
    return f"The files of the version cannot be written: {error.strerror or type(error).__name__}."


def unfrozen() -> Iterator[int]:
    """Versions whose freezing nobody works at, as far as the locks tell."""
    for version in DatasetVersion.objects.filter(status=Status.FREEZING):
        with dataset_lock(version.dataset_id, wait=False) as is_free:
            if is_free:
                yield version.pk
