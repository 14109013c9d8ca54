"""Reading an import: one worker at a time, resumed without a row twice or missing, cancelled at once, counted right."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.db.utils import OperationalError
from django.utils import timezone

from chat.errors import InvalidError
from finetuning import datasets
from finetuning.datasets import care, importing, imports, leases, polite, reading
from finetuning.datasets.folders import upload_path
from finetuning.datasets.importing import read_import
from finetuning.datasets.leases import Lease
from finetuning.jobs import shutdown
from finetuning.models import Dataset, DatasetImport, Example, ImportProblem
from tests.finetuning.datasets.support import (
    chat_lines,
    chat_row,
    read_upload,
    start_other_process,
    upload,
    write_lines,
)
from tests.support.waiting import wait_until

Status = DatasetImport.Status
LONG_AGO = timedelta(seconds=leases.LEASE_SECONDS + 5)


def joined(lines: list[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


def mixed_lines(count: int) -> list[str]:
    """Every tenth row cannot be used, every seventh repeats the one before."""
    lines = chat_lines(count)
    for number in range(count):
        if number % 10 == 9:
            lines[number] = json.dumps({"messages": [{"role": "user", "content": f"{number}"}]})
        elif number % 7 == 6:
            lines[number] = lines[number - 1]
    return lines


def counts(source_import: DatasetImport) -> tuple[int, ...]:
    source_import.refresh_from_db()
    names = ("rows_read", "rows_added", "rows_refused", "rows_warned", "duplicates")
    return tuple(getattr(source_import, name) for name in names)


def let_go_stale(source_import: DatasetImport) -> None:
    DatasetImport.objects.filter(pk=source_import.pk).update(heartbeat_at=timezone.now() - LONG_AGO)


def expect_whole(source_import: DatasetImport, lines: list[str]) -> None:
    """Each different usable row once, in order; each problem once; the counts as if nothing had happened."""
    rows = list(dict.fromkeys(line for line in lines if '"assistant"' in line))
    refused = sum('"assistant"' not in line for line in lines)
    stored = Example.objects.filter(source_import=source_import).order_by("pk").values_list("content", flat=True)
    assert list(stored) == [json.loads(row) for row in rows]
    assert counts(source_import) == (len(lines), len(rows), refused, 0, len(lines) - len(rows) - refused)
    assert source_import.codes == {"no_assistant_turn": refused}
    kept = list(ImportProblem.objects.filter(source_import=source_import).values_list("line", flat=True))
    assert len(kept) == len(set(kept)) == min(refused, reading.KEPT_PROBLEMS)


def test_rows_are_stored_with_what_is_known_about_them(dataset):
    lines = [json.dumps(chat_row(1, "Write to jane@example.com.")), json.dumps(chat_row(2))]
    source_import = read_upload(dataset, joined(lines))
    first, second = Example.objects.order_by("pk")
    assert (first.content, first.line, first.status) == (chat_row(1, "Write to jane@example.com."), 1, "approved")
    assert (first.findings, second.findings) == ({"email": 1}, {})
    assert source_import.findings == {"email": 1}
    assert second.length == len("Question 2?") + len("Answer 2.")
    assert second.source_import == source_import
    assert (source_import.bytes_read, source_import.heartbeat_at) == (source_import.size, None)
    dataset.refresh_from_db()
    assert dataset.kind == "chat"


def test_rows_wait_for_review_when_asked_to(dataset):
    read_upload(dataset, joined(chat_lines(3)), is_approved=False)
    assert set(Example.objects.values_list("status", flat=True)) == {"pending"}


def test_same_file_again_adds_nothing(dataset):
    lines = mixed_lines(300)
    expect_whole(first := read_upload(dataset, joined(lines)), lines)
    again = read_upload(dataset, joined(lines))
    assert again.status == Status.SUCCEEDED
    assert counts(again) == (300, 0, first.rows_refused, 0, 300 - first.rows_refused)


def test_columns_of_a_table_are_found_and_rows_of_one_group_stay_together(dataset):
    content = b"Review,Sentiment,thread_id\nGood,five,a\nBad,one,a\n"
    read_upload(dataset, content, name="rows.csv")
    rows = Example.objects.order_by("pk")
    assert [(row.content, row.label, row.group) for row in rows] == [
        ({"text": "Good", "label": "five"}, "five", "a"),
        ({"text": "Bad", "label": "one"}, "one", "a"),
    ]


def test_second_worker_does_not_read_along(dataset):
    source_import = upload(dataset, joined(chat_lines(20)))
    lease = leases.claim(source_import.pk)
    assert lease is not None
    assert leases.claim(source_import.pk) is None
    datasets.run_import(source_import.pk)
    assert counts(source_import) == (0, 0, 0, 0, 0)
    read_import(lease)
    assert counts(source_import) == (20, 20, 0, 0, 0)


def test_one_import_is_read_at_a_time(dataset):
    first, second = (upload(dataset, joined(chat_lines(20, start=start))) for start in (1, 100))
    lease = leases.claim(first.pk)
    assert leases.claim(second.pk) is None
    read_import(lease)
    assert leases.claim(second.pk) is not None


def test_import_whose_worker_died_is_taken_over_where_it_stood(dataset, monkeypatch):
    """The first worker stops in the middle without a word, as after kill -9; another one goes on."""
    lines = mixed_lines(1000)
    source_import = upload(dataset, joined(lines))
    lease = leases.claim(source_import.pk)
    recorder = reading.Recorder(DatasetImport.objects.select_related("dataset").get(pk=lease.import_id), lease)
    entries = reading.read_entries(recorder.source_import, lambda done, total: None)
    for step, _ in zip(reading.in_steps(entries), range(3), strict=False):
        recorder._write(step)
    assert 0 < counts(source_import)[0] < 1000
    datasets.run_import(source_import.pk)
    assert source_import.status == Status.RUNNING, "its heartbeat is fresh"
    let_go_stale(source_import)
    datasets.run_import(source_import.pk)
    expect_whole(source_import, lines)
    assert source_import.status == Status.SUCCEEDED


def test_worker_that_lost_its_lease_writes_nothing_more(dataset):
    source_import = upload(dataset, joined(chat_lines(200)))
    old = leases.claim(source_import.pk)
    let_go_stale(source_import)
    assert leases.claim(source_import.pk) is not None
    read_import(old)
    assert Example.objects.count() == 0
    assert counts(source_import) == (0, 0, 0, 0, 0)
    assert source_import.status == Status.RUNNING


READ = """
from finetuning.datasets import polite, run_import
import uuid
polite.PAUSE_SECONDS = 0.05
run_import(uuid.UUID("{}"))
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("after_rows", [1, 900])
def test_killed_worker_costs_no_row_and_repeats_none(dataset, after_rows):
    lines = mixed_lines(2500)
    source_import = upload(dataset, joined(lines))
    worker = start_other_process(READ.format(source_import.pk))
    try:
        wait_until(lambda: counts(source_import)[0] >= after_rows, what="the other process reads")
    finally:
        worker.kill()
        worker.communicate()
    assert source_import.status == Status.RUNNING
    let_go_stale(source_import)
    datasets.run_import(source_import.pk)
    expect_whole(source_import, lines)
    assert source_import.status == Status.SUCCEEDED


def cancel_at(monkeypatch, source_import: DatasetImport, rows: int) -> None:
    """As if somebody pressed the button while that row was being read."""
    real = reading.Recorder._write

    def write(recorder, step):
        if recorder.source_import.rows_read >= rows:
            datasets.cancel_import(DatasetImport.objects.get(pk=source_import.pk))
        real(recorder, step)

    monkeypatch.setattr(reading.Recorder, "_write", write)


def test_cancelled_import_takes_its_rows_with_it(dataset, monkeypatch):
    kept = read_upload(dataset, joined(chat_lines(10)))
    source_import = upload(dataset, joined(chat_lines(1000)))
    cancel_at(monkeypatch, source_import, 300)
    datasets.run_import(source_import.pk)
    source_import.refresh_from_db()
    assert source_import.status == Status.CANCELLED
    assert source_import.rows_added == 0
    assert set(Example.objects.values_list("source_import", flat=True)) == {kept.pk}
    assert not upload_path(source_import.pk).exists()


def test_dataset_emptied_by_a_cancel_takes_rows_of_any_kind_again(dataset, monkeypatch):
    source_import = upload(dataset, joined(chat_lines(1000)))
    cancel_at(monkeypatch, source_import, 300)
    datasets.run_import(source_import.pk)
    monkeypatch.undo()
    again = read_upload(Dataset.objects.get(), b"text,label\nOne,a\nTwo,b\n", name="rows.csv")
    assert (again.status, again.rows_added) == (Status.SUCCEEDED, 2)


def test_cancel_is_heard_while_no_row_comes(dataset, tmp_path, monkeypatch):
    """In a line that never ends the reader still looks up every two seconds; here at each piece of the file."""
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.0)
    path = tmp_path / "long.jsonl"
    path.write_bytes(joined(chat_lines(1)) + b"x" * 3_000_000)
    source_import = DatasetImport.objects.create(
        dataset=dataset, status=Status.QUEUED, path=str(path), layout={"wanted_format": "chat_messages"}
    )
    real = reading.Recorder._on_progress

    def on_progress(recorder, done, total):
        datasets.cancel_import(source_import)
        real(recorder, done, total)

    monkeypatch.setattr(reading.Recorder, "_on_progress", on_progress)
    datasets.run_import(source_import.pk)
    assert counts(source_import)[0] == 0
    assert source_import.status == Status.CANCELLED


@pytest.mark.parametrize("status", [Status.WAITING, Status.QUEUED])
def test_import_that_is_not_read_yet_is_cancelled_at_once(dataset, status):
    source_import = upload(dataset, joined(chat_lines(20)))
    DatasetImport.objects.filter(pk=source_import.pk).update(status=status)
    assert datasets.cancel_import(source_import).status == Status.CANCELLED
    datasets.run_import(source_import.pk)
    assert counts(source_import)[0] == 0


def test_cancel_after_the_end_changes_nothing(dataset):
    source_import = read_upload(dataset, joined(chat_lines(20)))
    assert datasets.cancel_import(source_import).status == Status.SUCCEEDED
    assert Example.objects.count() == 20


def test_cancelled_import_whose_worker_died_is_ended_by_the_next(dataset):
    source_import = upload(dataset, joined(chat_lines(20)))
    leases.claim(source_import.pk)
    datasets.cancel_import(source_import)
    let_go_stale(source_import)
    datasets.run_import(source_import.pk)
    source_import.refresh_from_db()
    assert source_import.status == Status.CANCELLED


def test_worker_that_ends_gives_the_import_back(dataset):
    lines = mixed_lines(400)
    source_import = upload(dataset, joined(lines))
    shutdown.request()
    try:
        datasets.run_import(source_import.pk)
    finally:
        shutdown.withdraw()
    assert 0 < counts(source_import)[0] < 400
    assert source_import.status == Status.QUEUED
    datasets.run_import(source_import.pk)
    expect_whole(source_import, lines)


def read_half(source_import: DatasetImport) -> None:
    """A worker begins it and has to end."""
    shutdown.request()
    try:
        datasets.run_import(source_import.pk)
    finally:
        shutdown.withdraw()
    assert counts(source_import)[1] > 0
    assert source_import.status == Status.QUEUED


def watch_taking_back(monkeypatch: pytest.MonkeyPatch, after_batch: Callable[[], None]) -> None:
    class Watched(polite.Pace):
        def ended(self) -> None:
            super().ended()
            after_batch()

    monkeypatch.setattr(imports, "Pace", Watched)


def test_half_read_import_is_cancelled_once_its_rows_are_gone(dataset, monkeypatch):
    source_import = upload(dataset, joined(chat_lines(400)))
    read_half(source_import)
    sent: list[object] = []
    monkeypatch.setattr(imports, "send", lambda task, row_id: sent.append((task, row_id)))
    datasets.cancel_import(source_import)
    assert (source_import.status, sent) == (Status.QUEUED, [("run_import", source_import.pk)])
    assert source_import.cancel_requested_at is not None
    datasets.run_import(source_import.pk)
    assert counts(source_import)[1] == 0
    assert (source_import.status, Example.objects.count()) == (Status.CANCELLED, 0)
    assert not upload_path(source_import.pk).exists()


def test_import_has_not_ended_while_its_rows_are_taken_back(dataset, monkeypatch):
    """The same file again at once: nothing of the first is there any more when the second begins."""
    first, second = (upload(dataset, joined(chat_lines(500))) for _ in range(2))
    seen: list[str] = []

    def look() -> None:
        datasets.run_import(second.pk)
        seen.append(DatasetImport.objects.get(pk=first.pk).status)

    cancel_at(monkeypatch, first, 300)
    watch_taking_back(monkeypatch, look)
    datasets.run_import(first.pk)
    assert seen == [Status.RUNNING] * 3
    datasets.run_import(second.pk)
    assert counts(first)[1] == 0
    assert first.status == Status.CANCELLED
    assert counts(second) == (500, 500, 0, 0, 0)


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_rows_that_an_ended_import_has_left_go_before_the_next_one_reads(dataset, status):
    """Left by a process that died between the end and the taking back."""
    ended = read_upload(dataset, joined(chat_lines(300)))
    other = read_upload(datasets.create_dataset("B", user=None), joined(chat_lines(300)))
    DatasetImport.objects.filter(pk__in=[ended.pk, other.pk]).update(status=status)
    again = read_upload(dataset, joined(chat_lines(300)))
    assert counts(again) == (300, 300, 0, 0, 0)
    assert counts(ended)[1] == 0
    assert counts(other)[1] == 300, "it is another dataset's"
    care.clean_up()
    assert set(Example.objects.values_list("source_import", flat=True)) == {again.pk}


def test_next_import_may_be_of_another_kind_than_what_is_taken_back(dataset):
    ended = read_upload(dataset, joined(chat_lines(30)))
    again = upload(datasets.create_dataset("B", user=None), b"text,label\nOne,a\nTwo,b\n", name="rows.csv")
    DatasetImport.objects.filter(pk=ended.pk).update(status=Status.FAILED)
    DatasetImport.objects.filter(pk=again.pk).update(dataset=dataset)
    datasets.run_import(again.pk)
    assert counts(again)[1] == 2


@pytest.mark.parametrize("is_own", [True, False])
def test_lease_is_kept_while_rows_are_taken_back(dataset, monkeypatch, is_own):
    """Of a large import that takes longer than a lease."""
    monkeypatch.setattr(leases, "BEAT_SECONDS", -1.0)
    source_import = upload(dataset, joined(chat_lines(500)))
    if is_own:
        cancel_at(monkeypatch, source_import, 300)
    else:
        before = upload(dataset, joined(chat_lines(300)))
        datasets.run_import(before.pk)
        DatasetImport.objects.filter(pk=before.pk).update(status=Status.CANCELLED)
    beaten: list[bool] = []

    def look() -> None:
        fresh = DatasetImport.objects.filter(pk=source_import.pk, heartbeat_at__gte=leases.stale_before())
        beaten.append(fresh.exists())
        let_go_stale(source_import)

    watch_taking_back(monkeypatch, look)
    datasets.run_import(source_import.pk)
    assert beaten == [True] * 3
    assert counts(source_import)[1] == (0 if is_own else 500)


def fail_at(monkeypatch: pytest.MonkeyPatch, line: int) -> None:
    real = reading.RowMaker.make

    def make(maker, draft):
        if draft.line == line:
            raise ZeroDivisionError
        return real(maker, draft)

    monkeypatch.setattr(reading.RowMaker, "make", make)


class KilledError(BaseException):
    """Nothing catches it: as far as the rows tell, the process is gone."""


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_import_whose_worker_dies_taking_rows_back_still_comes_to_nothing(dataset, monkeypatch, is_cancelled):
    """Also where the fault does not come again: what is gone already would be missing."""
    source_import = upload(dataset, joined(chat_lines(500)))

    def die() -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        watch_taking_back(patch, die)
        if is_cancelled:
            cancel_at(patch, source_import, 300)
        else:
            fail_at(patch, 350)
        with pytest.raises(KilledError):
            datasets.run_import(source_import.pk)
    assert 0 < Example.objects.count() < 300
    let_go_stale(source_import)
    datasets.run_import(source_import.pk)
    source_import.refresh_from_db()
    ended = (Status.CANCELLED, "") if is_cancelled else (Status.FAILED, "internal")
    assert (source_import.status, source_import.error_code) == ended
    assert not Example.objects.exists()


def test_worker_that_ends_gives_the_taking_back_back(dataset, monkeypatch):
    source_import = upload(dataset, joined(chat_lines(500)))
    cancel_at(monkeypatch, source_import, 300)
    with monkeypatch.context() as patch:
        watch_taking_back(patch, shutdown.request)
        try:
            datasets.run_import(source_import.pk)
        finally:
            shutdown.withdraw()
    source_import.refresh_from_db()
    assert (source_import.status, Example.objects.count()) == (Status.QUEUED, 200)
    datasets.run_import(source_import.pk)
    source_import.refresh_from_db()
    assert (source_import.status, Example.objects.count()) == (Status.CANCELLED, 0)


def test_half_read_import_goes_before_others_of_its_dataset(dataset, monkeypatch):
    """Else they would count its rows as there already, and it may yet be cancelled and take them back."""
    older, half = (upload(dataset, joined(chat_lines(400))) for _ in range(2))
    read_half(half)
    sent: list[object] = []
    monkeypatch.setattr(care, "send", lambda task, row_id: sent.append((task, row_id)))
    datasets.run_import(older.pk)
    assert counts(older) == (0, 0, 0, 0, 0)
    care.tend()
    assert sent == [("run_import", half.pk)]
    datasets.cancel_import(half)
    datasets.run_import(half.pk)
    datasets.run_import(older.pk)
    assert counts(older) == (400, 400, 0, 0, 0)


def test_fault_of_ours_ends_the_import_and_takes_its_rows_back(dataset, monkeypatch):
    source_import = upload(dataset, joined(chat_lines(1000)))
    fail_at(monkeypatch, 500)
    with pytest.raises(ZeroDivisionError):
        datasets.run_import(source_import.pk)
    source_import.refresh_from_db()
    assert (source_import.status, source_import.error_code) == (Status.FAILED, "internal")
    assert not Example.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_full_database_is_said_and_leaves_nothing_half_done(dataset, monkeypatch):
    source_import = upload(dataset, joined(chat_lines(1000)))
    real = reading.store_rows

    def store_rows(into, rows):
        if Example.objects.count() >= 500:
            raise OperationalError("database or disk is full")
        return real(into, rows)

    monkeypatch.setattr(reading, "store_rows", store_rows)
    with pytest.raises(OperationalError):
        datasets.run_import(source_import.pk)
    source_import.refresh_from_db()
    assert (source_import.status, source_import.error_code) == (Status.FAILED, "storage")
    assert "disk is full" in source_import.error_message
    assert not Example.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_database_that_is_away_leaves_the_import_to_the_next_worker(dataset, monkeypatch):
    source_import = upload(dataset, joined(chat_lines(20)))
    with monkeypatch.context() as patch:
        patch.setattr(reading, "store_rows", lambda *arguments: (_ for _ in ()).throw(OperationalError("gone")))
        patch.setattr(importing.connection, "is_usable", lambda: False)
        with pytest.raises(OperationalError):
            datasets.run_import(source_import.pk)
    let_go_stale(source_import)
    datasets.run_import(source_import.pk)
    assert counts(source_import) == (20, 20, 0, 0, 0)


@pytest.mark.django_db(transaction=True)
def test_two_imports_into_one_dataset_count_each_row_once(dataset, tmp_path):
    """A command beside the worker, with the same rows: each row is added by one of them."""
    path = write_lines(tmp_path / "rows.jsonl", chat_lines(600))
    found: list[DatasetImport] = []

    def read() -> None:
        try:
            found.append(datasets.import_file(Dataset.objects.get(), path))
        finally:
            connection.close()

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert [source_import.status for source_import in found] == [Status.SUCCEEDED] * 2
    assert sum(source_import.rows_added for source_import in found) == Example.objects.count() == 600
    assert sum(source_import.duplicates for source_import in found) == 600


def test_file_of_this_machine_is_read_here_and_stays(dataset, tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", chat_lines(250))
    seen: list[int] = []
    source_import = datasets.import_file(
        dataset, path, progress=lambda item: seen.append(item.rows_read), is_approved=False
    )
    assert (source_import.status, source_import.rows_added) == (Status.SUCCEEDED, 250)
    assert seen == sorted(seen)
    assert seen[-1] == 250
    assert path.exists()


def test_format_may_be_named(dataset, tmp_path):
    path = write_lines(tmp_path / "rows.txt", ["One line.", "Another line."])
    source_import = datasets.import_file(dataset, path, format_name="text")
    assert (source_import.status, source_import.rows_added) == (Status.SUCCEEDED, 2)
    with pytest.raises(InvalidError, match="There is no file"):
        datasets.import_file(dataset, tmp_path / "none.jsonl")


def test_unknown_format_fails_with_a_sentence(dataset, tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", chat_lines(20))
    source_import = datasets.import_file(dataset, path, format_name="poems")
    assert source_import.status == Status.FAILED
    assert "no format named" in source_import.error_message


def test_command_cannot_ask_so_it_says_what_is_missing(dataset, tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [json.dumps({"a": 1, "b": "x"})] * 3)
    source_import = datasets.import_file(dataset, path)
    assert (source_import.status, source_import.error_code) == (Status.FAILED, "unknown_layout")


def test_large_or_parquet_file_is_left_to_the_worker(dataset, tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["One", "Two"], "label": ["a", "b"]}), path)
    source_import = upload(dataset, path.read_bytes(), name="rows.parquet")
    assert (source_import.status, source_import.layout) == (Status.QUEUED, {})
    datasets.run_import(source_import.pk)
    source_import.refresh_from_db()
    assert (source_import.status, source_import.rows_added) == (Status.SUCCEEDED, 2)
    assert source_import.layout["container"] == "parquet"


def test_worker_asks_a_person_when_it_cannot_tell(dataset, monkeypatch):
    lines = [json.dumps({"said": f"Sentence {number}", "mood": "good"}) for number in range(30)]
    monkeypatch.setattr("finetuning.datasets.uploads.EXAMINED_AT_ONCE", 10)
    source_import = upload(dataset, joined(lines))
    assert source_import.status == Status.QUEUED
    datasets.run_import(source_import.pk)
    source_import.refresh_from_db()
    assert (source_import.status, source_import.owner_token) == (Status.WAITING, None)
    datasets.set_layout(source_import, format_name="classification", columns={"text": "said", "label": "mood"})
    datasets.run_import(source_import.pk)
    assert counts(source_import)[1] == 30


def test_reading_text_never_loads_pyarrow(dataset, tmp_path):
    code = f"""
import sys
from finetuning.datasets.layouts import examine, layout_from_dict
from finetuning.formats import parse
from pathlib import Path
path = Path({str(write_lines(tmp_path / "rows.jsonl", chat_lines(20)))!r})
layout = layout_from_dict(examine(path).to_dict())
assert len(list(parse(path, layout))) == 20
assert not {{"pyarrow", "pandas", "torch"}} & set(sys.modules)
"""
    process = start_other_process(code)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def test_tick_sends_the_oldest_import_and_only_while_none_is_read(dataset, monkeypatch):
    sent: list[object] = []
    monkeypatch.setattr(care, "send", lambda task, row_id: sent.append((task, row_id)))
    first, second = (upload(dataset, joined(chat_lines(20, start=start))) for start in (1, 100))
    care.tend()
    lease = leases.claim(first.pk)
    care.tend()
    assert sent == [("run_import", first.pk)]
    let_go_stale(first)
    care.tend()
    assert sent == [("run_import", first.pk)] * 2
    read_import(Lease(first.pk, lease.token))
    care.tend()
    assert sent[2:] == [("run_import", second.pk)]


def test_import_that_is_not_there_is_no_work(db):
    datasets.run_import(uuid.uuid4())
    assert not DatasetImport.objects.exists()
