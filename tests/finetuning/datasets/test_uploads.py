"""An upload in parts: any order, twice, from two tabs, resumed; and what is refused before it fills the disk."""

from __future__ import annotations

import errno
import os
import random
import threading

import pytest
from django.db import connection

from chat.errors import BusyError, InvalidError, NotFoundError, TooLongError
from finetuning import datasets
from finetuning.datasets import care, uploads
from finetuning.datasets.folders import marks_path, upload_path
from finetuning.models import Dataset, DatasetImport
from tests.finetuning.datasets.support import chat_lines, read_upload, upload

PART = uploads.PART_SIZE
Status = DatasetImport.Status


def make_content(size: int) -> bytes:
    lines = "\n".join(chat_lines(2000)).encode() + b"\n"
    return (lines * (size // len(lines) + 1))[:size]


def part_of(content: bytes, number: int) -> bytes:
    return content[(number - 1) * PART : number * PART]


@pytest.fixture
def three_parts(dataset) -> tuple[DatasetImport, bytes]:
    content = make_content(2 * PART + 1000)
    return datasets.start_upload(dataset, file_name="rows.jsonl", size=len(content), user=None), content


def test_parts_may_come_in_any_order_and_twice(three_parts):
    source_import, content = three_parts
    for number in (3, 1, 3, 1):
        received = datasets.receive_part(source_import, number, part_of(content, number))
    assert received == datasets.list_received(source_import) == [1, 3]
    assert datasets.receive_part(source_import, 2, part_of(content, 2)) == [1, 2, 3]
    assert upload_path(source_import.pk).read_bytes() == content
    assert source_import.status == Status.QUEUED


def test_part_that_comes_after_the_last_one_changes_nothing(three_parts):
    source_import, content = three_parts
    for number in (1, 2, 3):
        datasets.receive_part(source_import, number, part_of(content, number))
    assert datasets.receive_part(source_import, 2, b"x" * PART) == [1, 2, 3]
    assert upload_path(source_import.pk).read_bytes() == content


def test_upload_goes_on_in_another_process_with_what_is_missing(three_parts):
    source_import, content = three_parts
    datasets.receive_part(source_import, 2, part_of(content, 2))
    again = DatasetImport.objects.get(pk=source_import.pk)
    assert datasets.list_received(again) == [2]


@pytest.mark.parametrize("number", [0, 4, -1])
def test_part_that_cannot_be_is_refused(three_parts, number):
    with pytest.raises(InvalidError, match="this file has 3, counted from 1"):
        datasets.receive_part(three_parts[0], number, b"x" * PART)


@pytest.mark.parametrize(("number", "size"), [(1, PART - 1), (2, PART + 1), (3, 999), (3, PART), (1, 0)])
def test_part_of_another_size_is_refused(three_parts, number, size):
    with pytest.raises(InvalidError, match=f"Part {number} must have"):
        datasets.receive_part(three_parts[0], number, b"x" * size)
    assert datasets.list_received(three_parts[0]) == []


@pytest.mark.django_db(transaction=True)
def test_two_tabs_send_the_same_file_at_the_same_time(three_parts):
    """Both send all parts, each in its own order; one of them moves the import on, and the file is whole."""
    source_import, content = three_parts
    faults: list[Exception] = []

    def send_all(seed: int) -> None:
        try:
            mine = DatasetImport.objects.get(pk=source_import.pk)
            for number in random.Random(seed).sample([1, 2, 3], 3):
                datasets.receive_part(mine, number, part_of(content, number))
        except Exception as error:
            faults.append(error)
        finally:
            connection.close()

    tabs = [threading.Thread(target=send_all, args=(seed,)) for seed in range(4)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    source_import.refresh_from_db()
    assert faults == []
    assert source_import.status == Status.QUEUED
    assert upload_path(source_import.pk).read_bytes() == content


def test_small_file_is_looked_at_with_its_last_part(dataset):
    source_import = upload(dataset, "\n".join(chat_lines(20)).encode())
    assert source_import.status == Status.QUEUED
    assert source_import.layout["format_name"] == "chat_messages"
    assert not marks_path(source_import.pk).exists()


@pytest.mark.parametrize("size", [1000, PART + 1000])
def test_upload_whose_receiver_died_with_the_last_part_is_moved_on(dataset, monkeypatch, size):
    """Nothing is missing, so no tab would send a part again; a worker reads it to its end."""
    content = make_content(size).rpartition(b"\n")[0]
    source_import = datasets.start_upload(dataset, file_name="rows.jsonl", size=len(content), user=None)
    first, *others = range(1, datasets.count_parts(source_import) + 1)
    for number in others:
        datasets.receive_part(source_import, number, part_of(content, number))
    care.tend()
    source_import.refresh_from_db()
    assert source_import.status == Status.RECEIVING, "a part is missing"
    sent: list[object] = []
    monkeypatch.setattr(uploads, "send", lambda task, row_id: sent.append((task, row_id)))
    with monkeypatch.context() as patch:
        patch.setattr(uploads, "_finish", lambda source_import: None)
        datasets.receive_part(source_import, first, part_of(content, first))
    care.tend()
    source_import.refresh_from_db()
    assert source_import.status == Status.QUEUED
    assert not marks_path(source_import.pk).exists()
    assert sent == [("run_import", source_import.pk)]
    datasets.run_import(source_import.pk)
    source_import.refresh_from_db()
    assert source_import.status == Status.SUCCEEDED


def test_upload_that_is_moved_on_beside_its_receiver_goes_on_once(dataset, monkeypatch):
    """The receiver is looking at the file when the worker finds that all of it is here."""
    real = uploads.describe_examined

    def look(source_import):
        care.tend()
        return real(source_import)

    monkeypatch.setattr(uploads, "describe_examined", look)
    source_import = upload(dataset, "\n".join(chat_lines(20)).encode())
    assert source_import.status == Status.QUEUED
    datasets.run_import(source_import.pk)
    source_import.refresh_from_db()
    assert (source_import.status, source_import.rows_added) == (Status.SUCCEEDED, 20)


def test_receiver_of_the_last_part_hears_that_all_is_here_although_a_worker_was_faster(three_parts, monkeypatch):
    source_import, content = three_parts
    real = uploads._write_part

    def write(*arguments):
        real(*arguments)
        care.tend()

    monkeypatch.setattr(uploads, "_write_part", write)
    received = [datasets.receive_part(source_import, number, part_of(content, number)) for number in (1, 2, 3)]
    assert received == [[1], [1, 2], [1, 2, 3]]
    assert source_import.status == Status.QUEUED


@pytest.mark.parametrize("name", ["rows.zip", "rows.jsonl.gz", "a\\b\\rows.tar", "ROWS.7Z"])
def test_archive_is_refused_by_its_name(dataset, name):
    with pytest.raises(InvalidError, match="is packed"):
        datasets.start_upload(dataset, file_name=name, size=100, user=None)


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"])
def test_archive_under_another_name_is_refused_with_its_first_part(dataset, head):
    """Nothing of it is unpacked, and the rest of a large one is never sent."""
    source_import = datasets.start_upload(dataset, file_name="rows.jsonl", size=PART * 200, user=None)
    with pytest.raises(InvalidError, match="The file is packed as"):
        datasets.receive_part(source_import, 1, head + b"\x00" * (PART - len(head)))
    source_import.refresh_from_db()
    assert (source_import.status, source_import.error_code) == (Status.FAILED, "compressed")
    assert not upload_path(source_import.pk).exists()
    with pytest.raises(BusyError, match="This upload has ended"):
        datasets.receive_part(source_import, 2, b"x" * PART)


def test_size_has_a_limit_in_both_directions(dataset):
    with pytest.raises(InvalidError, match="The file is empty"):
        datasets.start_upload(dataset, file_name="rows.jsonl", size=0, user=None)
    with pytest.raises(TooLongError, match="at most 1 GiB"):
        datasets.start_upload(dataset, file_name="rows.jsonl", size=datasets.MAX_SIZE + 1, user=None)


@pytest.mark.parametrize("name", ["", "  ", "a/b/", "two\nlines.jsonl"])
def test_file_needs_a_name(dataset, name):
    with pytest.raises(InvalidError, match="needs a name"):
        datasets.start_upload(dataset, file_name=name, size=10, user=None)


def test_folder_in_a_file_name_is_left_out(dataset):
    source_import = datasets.start_upload(dataset, file_name="../../etc/rows.jsonl", size=10, user=None)
    assert source_import.file_name == "rows.jsonl"
    assert upload_path(source_import.pk).parent.name == "uploads"


def refuse_with(code: int):
    def fail(*arguments):
        raise OSError(code, os.strerror(code))

    return fail


def test_full_disk_is_known_before_anything_is_sent(dataset, monkeypatch):
    folder = upload_path(dataset.pk).parent
    before = set(folder.glob("*"))
    monkeypatch.setattr(os, "posix_fallocate", refuse_with(errno.ENOSPC))
    with pytest.raises(InvalidError, match="The disk has no room for this file"):
        datasets.start_upload(dataset, file_name="rows.jsonl", size=PART, user=None)
    assert not DatasetImport.objects.exists()
    assert set(folder.glob("*")) == before


def test_disk_that_fills_up_later_keeps_what_is_there(three_parts, monkeypatch):
    source_import, content = three_parts
    datasets.receive_part(source_import, 1, part_of(content, 1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse_with(errno.ENOSPC))
        with pytest.raises(InvalidError, match="The disk has no room"):
            datasets.receive_part(source_import, 2, part_of(content, 2))
    assert datasets.list_received(source_import) == [1]
    assert datasets.receive_part(source_import, 2, part_of(content, 2)) == [1, 2]


def test_dataset_and_its_first_upload_are_made_together_or_not_at_all(db, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", refuse_with(errno.ENOSPC))
    with pytest.raises(InvalidError, match="no room"):
        datasets.create_with_upload("Rivers", file_name="rows.jsonl", size=10, user=None)
    assert not Dataset.objects.exists()


def test_cancelled_upload_leaves_no_file(three_parts):
    source_import, content = three_parts
    datasets.receive_part(source_import, 1, part_of(content, 1))
    assert datasets.cancel_import(source_import).status == Status.CANCELLED
    assert not upload_path(source_import.pk).exists()
    assert datasets.list_received(source_import) == []
    with pytest.raises(BusyError):
        datasets.receive_part(source_import, 2, part_of(content, 2))


def test_deleted_dataset_takes_no_upload(dataset):
    datasets.delete_dataset(dataset)
    with pytest.raises(NotFoundError):
        datasets.start_upload(dataset, file_name="rows.jsonl", size=10, user=None)


def test_uploaded_file_goes_once_it_is_read(dataset):
    source_import = read_upload(dataset, "\n".join(chat_lines(20)).encode())
    assert source_import.status == Status.SUCCEEDED
    assert not upload_path(source_import.pk).exists()
