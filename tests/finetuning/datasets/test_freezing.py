"""Frozen versions: the approved rows of one moment, split by a seed, hashed, written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import uuid

import pytest
from django.db import DatabaseError

from chat.errors import BusyError, InvalidError
from finetuning import datasets
from finetuning.datasets import NothingNewError, Origin, care, freezing, leases, snapshots
from finetuning.datasets.folders import SPLITS, dataset_folder, dataset_lock
from finetuning.formats import ChatExample, Message, detect, parse
from finetuning.formats.hashing import hash_version
from finetuning.models import Dataset, DatasetImport, DatasetVersion, Example, VersionContributor
from finetuning.training import checks
from tests.finetuning.datasets.support import (
    chat_draft,
    chat_lines,
    fill,
    labelled_draft,
    read_upload,
    start_other_process,
)
from tests.support.waiting import wait_until

Status = DatasetVersion.Status


def rows_of(version: DatasetVersion) -> dict[str, list[dict]]:
    return {split: list(datasets.read_rows(version, split)) for split in SPLITS}


def every_row(version: DatasetVersion) -> list[dict]:
    return sorted((row for rows in rows_of(version).values() for row in rows), key=lambda row: row["id"])


@pytest.fixture
def hundred(dataset) -> Dataset:
    return fill(dataset, [chat_draft(number) for number in range(1, 101)])


def test_version_holds_the_approved_rows_in_order(hundred, alice):
    datasets.reject(Example.objects.filter(line__in=[3, 4]), user=alice)
    datasets.reopen(Example.objects.filter(line=5), user=alice)
    version = datasets.freeze_now(hundred, user=alice, notes="First.")
    expected = Example.objects.filter(status="approved").order_by("pk")
    assert [row["id"] for row in every_row(version)] == [row.pk for row in expected]
    assert [row["content"] for row in every_row(version)] == [row.content for row in expected]
    assert (version.number, version.status, version.rows, version.kind) == (1, Status.READY, 97, "chat")
    assert version.counts == {"train": 87, "validation": 10, "test": 0}
    assert {split: len(rows) for split, rows in rows_of(version).items()} == version.counts
    assert (version.created_by, version.notes) == (alice, "First.")


def test_hash_covers_rows_order_and_splits(hundred):
    version = datasets.freeze_now(hundred, user=None)
    splits = {row["id"]: split for split, rows in rows_of(version).items() for row in rows}
    rows = every_row(version)
    wanted = hash_version((row["hash"] for row in rows), splits=[splits[row["id"]] for row in rows])
    assert version.content_hash == wanted == datasets.hash_files(version)


def test_same_rows_give_the_same_hash_anywhere(hundred, db):
    other = fill(datasets.create_dataset("Copy", user=None), [chat_draft(number) for number in range(1, 101)])
    first, second = (datasets.freeze_now(dataset, user=None) for dataset in (hundred, other))
    assert first.content_hash == second.content_hash
    assert {row["hash"] for row in rows_of(first)["validation"]} == {
        row["hash"] for row in rows_of(second)["validation"]
    }


def test_freezing_again_says_that_nothing_changed(hundred):
    version = datasets.freeze_now(hundred, user=None)
    with pytest.raises(NothingNewError, match="Version 1 holds exactly these rows") as refusal:
        datasets.freeze(hundred, user=None)
    assert refusal.value.version == version
    assert datasets.freeze_now(hundred, user=None) == version
    assert DatasetVersion.objects.count() == 1
    assert datasets.is_up_to_date(version)


def test_task_says_that_nothing_changed_where_nobody_could_before(hundred, monkeypatch):
    datasets.freeze_now(hundred, user=None)
    monkeypatch.setattr(freezing, "COMPARED_AT_ONCE", 0)
    version = datasets.freeze(hundred, user=None)
    datasets.freeze_version(version.pk)
    version.refresh_from_db()
    assert version.status == Status.FAILED
    assert "nothing to freeze" in version.error_message
    assert not (dataset_folder(hundred.pk) / "v2").exists()


@pytest.mark.parametrize("change", ["approve", "edit", "seed", "shares"])
def test_whatever_changes_the_version_is_a_new_one(hundred, alice, change):
    datasets.reject(Example.objects.filter(line=1), user=alice)
    version = datasets.freeze_now(hundred, user=None)
    arguments = {}
    match change:
        case "approve":
            datasets.approve(Example.objects.filter(line=1), user=alice)
        case "edit":
            datasets.edit_example(
                Example.objects.get(line=2), {"messages": [{"role": "user", "content": "Q"}] * 1 + answer()}, user=alice
            )
        case "seed":
            arguments = {"seed": 7}
        case "shares":
            arguments = {"shares": {"validation": 0.2, "test": 0.1}}
    hundred.refresh_from_db()
    if not arguments:
        version.refresh_from_db()
        assert not datasets.is_up_to_date(version)
    newer = datasets.freeze_now(hundred, user=None, **arguments)
    assert newer.number == 2
    assert newer.content_hash != version.content_hash


def answer() -> list[dict]:
    return [{"role": "assistant", "content": "Another answer."}]


def test_ensured_version_is_the_newest_as_long_as_it_holds_everything(hundred, alice):
    first = datasets.ensure_version(hundred, user=alice)
    assert (first.status, datasets.ensure_version(hundred, user=alice)) == (Status.FREEZING, first)
    datasets.freeze_version(first.pk)
    hundred.refresh_from_db()
    assert datasets.ensure_version(hundred, user=alice) == first
    datasets.reject(Example.objects.filter(line=1), user=alice)
    hundred.refresh_from_db()
    assert datasets.ensure_version(hundred, user=alice).number == 2


def test_rows_of_one_conversation_stay_in_one_split(dataset):
    drafts = [chat_draft(number, group=f"talk {number % 20}") for number in range(200)]
    version = datasets.freeze_now(fill(dataset, drafts), user=None, shares={"validation": 0.2, "test": 0.2})
    groups = {split: {row["group"] for row in rows} for split, rows in rows_of(version).items()}
    assert all(groups.values())
    assert not groups["train"] & groups["validation"]
    assert not groups["train"] & groups["test"]
    assert not groups["validation"] & groups["test"]


def test_labels_keep_their_shares(dataset):
    drafts = [labelled_draft(number, "rare" if number % 10 == 0 else "common") for number in range(200)]
    version = datasets.freeze_now(fill(dataset, drafts), user=None, shares={"validation": 0.2})
    assert sum(row["label"] == "rare" for row in rows_of(version)["validation"]) == 4
    assert version.report["labels"] == {
        "counts": {"common": 180, "rare": 20},
        "total": 200,
        "majority_share": 0.9,
    }


def test_report_measures_lengths_origins_and_findings(hundred):
    fill(hundred, [chat_draft(101, origin=Origin.CORRECTION)])
    talk = ChatExample((Message("user", "Who?"), Message("assistant", "Ask jane@example.com.")))
    fill(hundred, [datasets.Draft(talk)])
    report = datasets.freeze_now(hundred, user=None).report
    assert report["lengths"]["count"] == 102
    assert sum(bin["count"] for bin in report["lengths"]["bins"]) == 102
    assert report["origins"] == {"file": 101, "correction": 1}
    assert report["findings"] == {"email": 1}
    assert report["warnings"] == []


def test_pairs_that_teach_length_are_warned_of(dataset):
    from finetuning.formats import PreferenceExample

    def pair(number: int) -> datasets.Draft:
        prompt = (Message("user", f"Question {number}?"),)
        long, short = Message("assistant", "A long answer, much longer."), Message("assistant", "Short.")
        return datasets.Draft(PreferenceExample(prompt, (long,), (short,)))

    report = datasets.freeze_now(fill(dataset, map(pair, range(20))), user=None).report
    assert report["longer_chosen_share"] == 1.0
    assert [warning["code"] for warning in report["warnings"]] == ["length_bias"]


def test_whose_rows_a_version_holds_is_kept_with_it(hundred, alice, bob):
    talk = uuid.uuid4()
    drafts = [
        chat_draft(201, contributor_id=alice.pk, conversation_id=talk, origin=Origin.CORRECTION),
        chat_draft(202, contributor_id=alice.pk, conversation_id=talk, origin=Origin.ANSWER),
        chat_draft(203, contributor_id=bob.pk, conversation_id=None),
    ]
    version = datasets.freeze_now(fill(hundred, drafts), user=None)
    kept = VersionContributor.objects.filter(version=version).order_by("contributor_id")
    assert list(kept.values_list("contributor_id", "conversation_id", "rows", "corrections")) == [
        (alice.pk, talk, 2, 1),
        (bob.pk, None, 1, 0),
    ]
    assert [row["contributor"] for row in every_row(version)[-3:]] == [alice.pk, alice.pk, bob.pk]
    assert every_row(version)[-3]["conversation"] == str(talk)


def test_ten_rows_are_the_least(dataset):
    fill(dataset, [chat_draft(number) for number in range(9)])
    with pytest.raises(InvalidError, match="at least 10 approved rows, and this dataset has 9"):
        datasets.freeze(dataset, user=None)
    fill(dataset, [chat_draft(9)])
    assert datasets.freeze_now(dataset, user=None).rows == 10


def test_what_can_be_frozen_can_be_trained_on():
    assert freezing.MIN_ROWS == checks.MIN_ROWS


@pytest.mark.parametrize(
    "shares",
    [{"train": 0.5}, {"holdout": 0.1}, {"validation": -0.1}, {"validation": 0.95}, {"validation": float("nan")}],
)
def test_shares_that_cannot_be_are_refused(hundred, shares):
    with pytest.raises(InvalidError):
        datasets.freeze(hundred, user=None, shares=shares)
    assert not DatasetVersion.objects.exists()


def test_seed_that_no_column_holds_is_refused(hundred):
    with pytest.raises(InvalidError, match="A seed is a whole number"):
        datasets.freeze(hundred, user=None, seed=2**40)


def test_version_begun_while_an_import_ends_is_out_of_date(hundred, monkeypatch):
    """It has none of the new rows: until then they could have been taken back."""
    real = leases.Lease.release

    def release(lease, status, **fields):
        datasets.freeze_now(hundred, user=None)
        return real(lease, status, **fields)

    monkeypatch.setattr(leases.Lease, "release", release)
    read_upload(hundred, "\n".join(chat_lines(20, start=500)).encode())
    version = DatasetVersion.objects.select_related("dataset").get()
    assert (version.rows, Example.objects.count()) == (100, 120)
    assert not datasets.is_up_to_date(version)


def test_rows_of_an_import_that_has_not_succeeded_are_left_out(hundred):
    unfinished = DatasetImport.objects.create(dataset=hundred, status="running")
    Example.objects.filter(line__lte=40).update(source_import=unfinished)
    assert datasets.freeze_now(hundred, user=None).rows == 60


def test_one_version_is_frozen_at_a_time(hundred):
    version = datasets.freeze(hundred, user=None)
    with pytest.raises(BusyError, match="Version 1 is being frozen"):
        datasets.freeze(hundred, user=None)
    datasets.freeze_version(version.pk)
    version.refresh_from_db()
    assert version.status == Status.READY
    datasets.freeze_version(version.pk)
    assert DatasetVersion.objects.get() == version


def test_second_worker_leaves_a_freeze_alone(hundred):
    version = datasets.freeze(hundred, user=None)
    with dataset_lock(hundred.pk, wait=False) as is_mine:
        assert is_mine
        datasets.freeze_version(version.pk)
    version.refresh_from_db()
    assert version.status == Status.FREEZING


def test_full_disk_fails_the_version_and_leaves_no_file(hundred, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(snapshots, "write_durably", fail)
    version = datasets.freeze(hundred, user=None)
    datasets.freeze_version(version.pk)
    version.refresh_from_db()
    assert version.status == Status.FAILED
    assert version.error_message == "The disk is full. Free some room and freeze again."
    assert sorted(path.name for path in dataset_folder(hundred.pk).iterdir()) == ["lock"]


def test_version_that_cannot_be_recorded_leaves_no_words(hundred, monkeypatch):
    """Its files are in place by then, and no withdrawal looks into a version that failed."""

    def fail(*arguments):
        raise DatabaseError("database is locked")

    monkeypatch.setattr(freezing, "_finish", fail)
    with pytest.raises(DatabaseError):
        datasets.freeze_now(hundred, user=None)
    assert DatasetVersion.objects.get(dataset=hundred).status == Status.FAILED
    assert sorted(path.name for path in dataset_folder(hundred.pk).iterdir()) == ["lock"]


def test_version_that_a_worker_found_first_is_frozen_once(hundred, monkeypatch):
    begin = freezing._begin

    def begin_and_be_found(*arguments, **named):
        version = begin(*arguments, **named)
        datasets.freeze_version(version.pk)
        return version

    monkeypatch.setattr(freezing, "_begin", begin_and_be_found)
    version = datasets.freeze_now(hundred, user=None)
    assert (version.number, version.status, version.rows) == (1, Status.READY, 100)
    assert DatasetVersion.objects.filter(pk=version.pk).exists()


FREEZE = """
from finetuning.datasets import freeze_version, snapshots
import time
real = snapshots._line
def slow(row):
    time.sleep(0.02)
    return real(row)
snapshots._line = slow
freeze_version({})
"""


@pytest.mark.django_db(transaction=True)
def test_freeze_whose_worker_was_killed_is_done_again(hundred, monkeypatch):
    version = datasets.freeze(hundred, user=None)
    work = dataset_folder(hundred.pk) / ".v1"
    worker = start_other_process(FREEZE.format(version.pk))
    try:
        wait_until((work / "all.jsonl").exists)
        assert list(freezing.unfrozen()) == [], "it is being frozen"
    finally:
        worker.kill()
        worker.communicate()
    sent: list[object] = []
    monkeypatch.setattr(care, "send", lambda task, row_id: sent.append((task, row_id)))
    care.tend()
    assert sent == [("freeze_version", version.pk)]
    datasets.freeze_version(version.pk)
    version.refresh_from_db()
    assert (version.status, version.rows) == (Status.READY, 100)
    assert datasets.hash_files(version) == version.content_hash
    assert not work.exists()


def test_export_is_read_back_by_our_own_readers(hundred, tmp_path):
    version = datasets.freeze_now(hundred, user=None)
    path = tmp_path / "export.jsonl"
    path.write_bytes(b"".join(datasets.iterate_export(version)))
    results = list(parse(path, detect(path).layout))
    assert all(result.example for result in results)
    assert {result.example.content_hash() for result in results} == {row["hash"] for row in every_row(version)}
    only = b"".join(datasets.iterate_export(version, "validation")).splitlines()
    assert [json.loads(line) for line in only] == [row["content"] for row in rows_of(version)["validation"]]
    with pytest.raises(InvalidError, match="the splits train, validation, test"):
        datasets.iterate_export(version, "holdout")


def test_files_hold_texts_as_they_are(dataset):
    talk = ChatExample((Message("user", "Grüße 👋\u2028?"), Message("assistant", "Zeile\neins")))
    version = datasets.freeze_now(
        fill(dataset, [*(chat_draft(number) for number in range(10)), datasets.Draft(talk)]), user=None
    )
    assert every_row(version)[-1]["content"] == talk.to_dict()
    assert "Grüße" in b"".join(datasets.iterate_export(version)).decode()
