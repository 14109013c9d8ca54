"""Reading an import from claim to end: the body of the task, and of the command that does it here and now."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import structlog
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models.functions import Coalesce
from django.utils import timezone

from accounts.models import User
from chat.errors import ChatError, InvalidError
from finetuning.datasets.drafts import touch
from finetuning.datasets.imports import UNDONE, Status, describe_examined, remove_file, take_back
from finetuning.datasets.leases import ImportCancelledError, Lease, LeaseLostError, claim
from finetuning.datasets.reading import Progress, Recorder, WorkerEndingError, give_way
from finetuning.formats import Code, FormatError
from finetuning.models import Dataset, DatasetImport

log = structlog.get_logger(__name__)


class _FailedError(Exception):
    """The import cannot succeed. The code is stable, the sentence is for a person."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def run_import(import_id: uuid.UUID) -> None:
    """Read an import unless somebody else does. Safe to call at any time, for any import, any number of times."""
    lease = claim(import_id)
    if lease is not None:
        read_import(lease)


def import_file(
    dataset: Dataset,
    path: Path,
    *,
    user: User | None = None,
    format_name: str = "auto",
    is_approved: bool = True,
    progress: Progress | None = None,
) -> DatasetImport:
    """Read a file of this machine here and now; it stays where it is. Raises InvalidError when it is not there."""
    path = check_file(path)
    lease = Lease(uuid.uuid4(), uuid.uuid4())
    now = timezone.now()
    source_import = DatasetImport.objects.create(
        id=lease.import_id,
        dataset=dataset,
        status=Status.RUNNING,
        file_name=path.name[-255:],
        size=path.stat().st_size,
        path=str(path),
        layout={"wanted_format": format_name},
        is_approved=is_approved,
        owner_token=lease.token,
        heartbeat_at=now,
        started_at=now,
        created_by=user,
    )
    read_import(lease, progress=progress, may_ask=False)
    source_import.refresh_from_db()
    return source_import


def check_file(path: Path) -> Path:
    """Where it lies. Raises InvalidError when it is not there."""
    path = path.resolve()
    if not path.is_file():
        raise InvalidError(f"There is no file {path}.")
    return path


def read_import(lease: Lease, *, progress: Progress | None = None, may_ask: bool = True) -> None:
    """Until it has ended, one way or another, or waits for a person. `may_ask`: somebody can say what a column is."""
    source_import = DatasetImport.objects.select_related("dataset").get(pk=lease.import_id)
    try:
        if _prepare(source_import, lease, may_ask=may_ask):
            Recorder(source_import, lease, progress=progress).record()
            _conclude(source_import, lease)
    except LeaseLostError:
        log.warning("import_lease_lost", import_id=str(lease.import_id))
    except WorkerEndingError:
        lease.release(Status.QUEUED)
    except ImportCancelledError:
        _cancel(source_import, lease)
    except KeyboardInterrupt:
        _cancel(source_import, lease)
        raise
    except (FormatError, _FailedError, ChatError) as error:
        _fail(source_import, lease, error.code, error.message)
    except OSError as error:
        _fail(source_import, lease, "unreadable", f"The file cannot be read: {error.strerror or type(error).__name__}.")
    except (DatabaseError, InterfaceError) as error:
        if not connection.is_usable():  # the database is away: another worker goes on once it is back
            connection.close()
            raise
        _fail(source_import, lease, "storage", f"The database could not keep the rows: {error}.")
        raise
    except Exception:  # a fault of ours: whoever took it over would only meet it again
        _fail(source_import, lease, "internal", "Something went wrong on our side. It has been logged.")
        raise


def _prepare(source_import: DatasetImport, lease: Lease, *, may_ask: bool) -> bool:
    """False: it waits for a person, who says which column is what."""
    _go_on_ending(source_import)
    _take_back_undone(source_import, lease)
    if source_import.source == DatasetImport.Source.CONVERSATIONS:
        _begin_again(source_import, lease)
    elif not source_import.layout.get("container"):
        status, fields = describe_examined(source_import)
        if status == Status.WAITING and not may_ask:
            raise _FailedError(Code.UNKNOWN_LAYOUT, f"{fields['layout']['reason']} Name the format yourself.")
        if status == Status.WAITING:
            lease.release(status, **fields)
            return False
        lease.write(**fields)
        source_import.layout = fields["layout"]
    return True


def _go_on_ending(source_import: DatasetImport) -> None:
    """Whoever had it before was taking its rows back: those that are left are not the whole of it any more."""
    if source_import.error_code:
        raise _FailedError(source_import.error_code, source_import.error_message)
    if source_import.cancel_requested_at:
        raise ImportCancelledError


def _take_back_undone(source_import: DatasetImport, lease: Lease) -> None:
    """Rows of others that came to nothing: found here they would be counted as there already, and go afterwards."""
    undone = DatasetImport.objects.filter(dataset=source_import.dataset_id, status__in=UNDONE, rows_added__gt=0)
    for other in undone:
        _take_back(other, lease.beat)
    source_import.dataset.refresh_from_db(fields=["kind"])  # it may take rows of any kind again


def _take_back(source_import: DatasetImport, beat: Callable[[], None]) -> None:
    """Raises what `beat` raises, and WorkerEndingError."""

    def go_on() -> None:
        beat()
        give_way()

    take_back(source_import, after_batch=go_on)


def _begin_again(source_import: DatasetImport, lease: Lease) -> None:
    """Conversations go on while they are read, so there is no place to go on from; there are few of them."""
    if source_import.rows_read:
        _take_back(source_import, lease.beat)
        none = dict.fromkeys(("rows_read", "rows_added", "rows_warned", "rows_refused", "duplicates"), 0)
        lease.write(**none, codes={}, findings={})
        source_import.refresh_from_db()


def _conclude(source_import: DatasetImport, lease: Lease) -> None:
    if source_import.source == DatasetImport.Source.FILE:
        if not source_import.rows_read:
            raise _FailedError(Code.EMPTY_FILE, "The file has no rows.")
        if source_import.rows_refused == source_import.rows_read:
            message = f"None of the {source_import.rows_read:,} rows can be used. The list says why, row by row."
            raise _FailedError("no_rows", message)
    with transaction.atomic():  # seen to have succeeded, its rows are in no version that is older
        has_ended = _end(lease, Status.SUCCEEDED, bytes_read=source_import.size)
        touch(source_import.dataset_id)
    if has_ended:
        remove_file(source_import)


def _cancel(source_import: DatasetImport, lease: Lease) -> None:
    requested_at = Coalesce("cancel_requested_at", timezone.now())
    _undo(source_import, lease, Status.CANCELLED, cancel_requested_at=requested_at)


def _fail(source_import: DatasetImport, lease: Lease, code: str, message: str) -> None:
    log.info("import_failed", import_id=str(lease.import_id), code=str(code))
    _undo(source_import, lease, Status.FAILED, error_code=str(code), error_message=message)


def _undo(source_import: DatasetImport, lease: Lease, status: Status, **reason: object) -> None:
    """First the reason, which whoever takes over goes on with; then the rows; and only then it has ended."""
    try:
        lease.write_last(**reason)
        _take_back(source_import, lease.beat_last)
    except LeaseLostError:
        log.warning("import_lease_lost", import_id=str(lease.import_id))
    except WorkerEndingError:
        lease.release(Status.QUEUED)
    else:
        if _end(lease, status):
            remove_file(source_import)


def _end(lease: Lease, status: Status, **fields: object) -> bool:
    return lease.release(status, finished_at=timezone.now(), **fields)
