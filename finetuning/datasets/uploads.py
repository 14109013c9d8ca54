"""A file on its way here in parts: any order, any number of times, from any number of tabs, never whole in memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from accounts.models import User
from chat.errors import BusyError, ChatError, InvalidError, NotFoundError, TooLongError
from finetuning.datasets.dispatch import send
from finetuning.datasets.drafts import WrongKindError
from finetuning.datasets.folders import marks_path, upload_path
from finetuning.datasets.imports import describe_examined, end_receiving, remove_file
from finetuning.datasets.services import create_dataset
from finetuning.formats import FileRefusedError
from finetuning.formats.detection import refuse_binary
from finetuning.models import Dataset, DatasetImport

PART_SIZE = 4 * 1024 * 1024
MAX_SIZE = 1024**3
# A larger file is looked at by the worker: to tell its encoding it may have to be read to its end.
EXAMINED_AT_ONCE = 4 * 1024 * 1024
PACKED_NAMES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".tar")
PARQUET = b"PAR1"
ARRIVED = b"\x01"

Status = DatasetImport.Status


def start_upload(
    dataset: Dataset, *, file_name: str, size: int, user: User | None, is_approved: bool = True
) -> DatasetImport:
    """Keeps the room for the file at once, so that a full disk is known before anything is sent.

    Raises InvalidError, TooLongError.
    """
    if dataset.deleted_at is not None:
        raise NotFoundError("There is no such dataset.")
    name = _clean_name(file_name)
    _check_size(size)
    source_import = DatasetImport(
        dataset=dataset,
        file_name=name,
        size=size,
        part_size=PART_SIZE,
        is_approved=is_approved,
        created_by=user,
    )
    source_import.path = f"uploads/{source_import.pk}"
    _keep_room(source_import)
    try:
        source_import.save(force_insert=True)
    except BaseException:
        remove_file(source_import)
        raise
    return source_import


def create_with_upload(
    name: str,
    *,
    file_name: str,
    size: int,
    user: User | None,
    kind: str = "",
    description: str = "",
    is_approved: bool = True,
) -> tuple[Dataset, DatasetImport]:
    """A dataset and the upload of its first file, both or neither. Raises InvalidError, TooLongError."""
    _clean_name(file_name)
    _check_size(size)
    dataset = create_dataset(name, user=user, kind=kind, description=description)
    try:
        return dataset, start_upload(dataset, file_name=file_name, size=size, user=user, is_approved=is_approved)
    except ChatError:
        dataset.delete()
        raise


def count_parts(source_import: DatasetImport) -> int:
    return -(-source_import.size // source_import.part_size) if source_import.part_size else 0


def list_received(source_import: DatasetImport) -> list[int]:
    """The numbers, from 1, of the parts that are here."""
    if source_import.status == Status.RECEIVING:
        try:
            marks = marks_path(source_import.pk).read_bytes()
        except FileNotFoundError:
            source_import.refresh_from_db(fields=["status"])  # somebody has just moved it on
        else:
            return [number for number, mark in enumerate(marks, 1) if mark]
    return list(range(1, count_parts(source_import) + 1)) if _has_arrived(source_import) else []


def receive_part(source_import: DatasetImport, number: int, data: bytes) -> list[int]:
    """Keep a part; one that is here already is left as it is. With the last one the file is looked at and queued.

    Returns the numbers received so far. Raises InvalidError for a wrong number or size, a full disk, a packed file.
    """
    if _has_arrived(source_import):
        return list_received(source_import)
    if source_import.status != Status.RECEIVING:
        raise BusyError("This upload has ended. Start a new one.")
    _check_part(source_import, number, data)
    if number == 1:
        _refuse_at_once(source_import, data)
    received = list_received(source_import)
    if number not in received:
        _write_part(source_import, number, data)
        received = list_received(source_import)
    if len(received) == count_parts(source_import) and source_import.status == Status.RECEIVING:
        _finish(source_import)
    return received


def finish_arrived() -> None:
    """Moves on what is all here, but whose last part's receiver died before it could. A worker looks at the file."""
    for source_import in DatasetImport.objects.filter(status=Status.RECEIVING, part_size__gt=0):
        is_complete = len(list_received(source_import)) == count_parts(source_import)
        if is_complete and end_receiving(source_import, Status.QUEUED):  # not if its receiver lives and was faster
            send("run_import", source_import.pk)


def _has_arrived(source_import: DatasetImport) -> bool:
    return source_import.status in (Status.WAITING, Status.QUEUED, Status.RUNNING, Status.SUCCEEDED)


def _clean_name(file_name: str) -> str:
    """The name alone, whatever folder the sender's machine has it in."""
    name = file_name.replace("\\", "/").rpartition("/")[2].strip()
    if not name or not name.isprintable():
        raise InvalidError("The file needs a name.")
    if name.lower().endswith(PACKED_NAMES):
        raise InvalidError(f"“{name[:80]}” is packed. Unpack it and upload what is inside.")
    return name[-255:]


def _check_size(size: int) -> None:
    if size < 1:
        raise InvalidError("The file is empty.")
    if size > MAX_SIZE:
        raise TooLongError("A file may have at most 1 GiB. Split it and upload the pieces one after the other.")


def _keep_room(source_import: DatasetImport) -> None:
    path = upload_path(source_import.pk)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("wb") as handle:
            os.posix_fallocate(handle.fileno(), 0, source_import.size)
        marks_path(source_import.pk).write_bytes(bytes(count_parts(source_import)))
    except OSError as error:
        remove_file(source_import)
        raise _no_room(error, source_import.size) from error


def _no_room(error: OSError, size: int) -> InvalidError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return InvalidError(f"The disk has no room for this file ({size:,} bytes). Free some and try again.")
    return InvalidError(f"The file cannot be kept here: {error.strerror}.")


def _check_part(source_import: DatasetImport, number: int, data: bytes) -> None:
    parts = count_parts(source_import)
    if not 1 <= number <= parts:
        raise InvalidError(f"There is no part {number}: this file has {parts}, counted from 1.")
    wanted = source_import.part_size if number < parts else source_import.size - (parts - 1) * source_import.part_size
    if len(data) != wanted:
        raise InvalidError(f"Part {number} must have {wanted:,} bytes, and {len(data):,} came.")


def _refuse_at_once(source_import: DatasetImport, data: bytes) -> None:
    """What cannot be read anyway is not received to its end."""
    try:
        refuse_binary(data[:16])
    except FileRefusedError as error:
        end_receiving(source_import, Status.FAILED, error_code=error.code, error_message=error.message)
        raise InvalidError(error.message) from error


def _write_part(source_import: DatasetImport, number: int, data: bytes) -> None:
    try:
        _write_at(upload_path(source_import.pk), data, (number - 1) * source_import.part_size)
        _write_at(marks_path(source_import.pk), ARRIVED, number - 1)
    except FileNotFoundError as error:
        source_import.refresh_from_db()
        if not _has_arrived(source_import):  # else another tab has brought all of it meanwhile
            raise BusyError("This upload has ended. Start a new one.") from error
    except OSError as error:
        raise _no_room(error, source_import.size) from error


def _write_at(path: Path, data: bytes, offset: int) -> None:
    handle = os.open(path, os.O_WRONLY)
    try:
        view = memoryview(data)
        while view:
            written = os.pwrite(handle, view, offset)
            view, offset = view[written:], offset + written
    finally:
        os.close(handle)


def _finish(source_import: DatasetImport) -> None:
    """Of two tabs that bring the last parts together one moves the import on."""
    path = upload_path(source_import.pk)
    try:
        with path.open("rb") as stream:
            is_parquet = stream.read(len(PARQUET)) == PARQUET
        if source_import.size > EXAMINED_AT_ONCE or is_parquet:
            end_receiving(source_import, Status.QUEUED)
        else:
            status, fields = describe_examined(source_import)
            end_receiving(source_import, status, **fields)
    except FileRefusedError as error:
        end_receiving(source_import, Status.FAILED, error_code=error.code, error_message=error.message)
    except WrongKindError as error:
        end_receiving(source_import, Status.FAILED, error_code=error.code, error_message=error.message)
    except FileNotFoundError:
        pass  # the other tab's last part has moved it on, or somebody has cancelled it
    source_import.refresh_from_db()
    if source_import.status == Status.QUEUED:
        send("run_import", source_import.pk)
