"""Withdrawn rows leave a frozen version for good: its files, its counts, its hash, its list of contributors."""

from __future__ import annotations

import uuid

import pytest

from finetuning import datasets
from finetuning.datasets import Origin, redaction
from finetuning.datasets.folders import SPLITS
from finetuning.models import Dataset, DatasetVersion, VersionContributor
from tests.finetuning.datasets.support import chat_draft, fill

TALK, OTHER = uuid.uuid4(), uuid.uuid4()


@pytest.fixture
def version(dataset, alice, bob) -> DatasetVersion:
    """50 rows of nobody, 10 of alice's in two conversations, 5 of bob's."""
    drafts = [chat_draft(number) for number in range(50)]
    for number in range(10):
        talk = TALK if number < 6 else OTHER
        drafts.append(chat_draft(100 + number, contributor_id=alice.pk, conversation_id=talk, origin=Origin.ANSWER))
    drafts += [chat_draft(200 + number, contributor_id=bob.pk, conversation_id=uuid.uuid4()) for number in range(5)]
    return datasets.freeze_now(fill(dataset, drafts), user=None, shares={"validation": 0.2, "test": 0.1})


def contributors(version: DatasetVersion) -> list[int | None]:
    return [row["contributor"] for split in SPLITS for row in datasets.read_rows(version, split)]


def test_person_leaves_a_version(version, alice, bob):
    before = version.content_hash
    assert datasets.redact_version(version, contributor_id=alice.pk) == 10
    assert contributors(version).count(alice.pk) == 0
    assert contributors(version).count(bob.pk) == 5
    assert (version.rows, version.redacted_rows, sum(version.counts.values())) == (55, 10, 55)
    assert version.redacted_at is not None
    assert version.content_hash == datasets.hash_files(version) != before
    assert not VersionContributor.objects.filter(version=version, contributor_id=alice.pk).exists()
    assert VersionContributor.objects.filter(version=version, contributor_id=bob.pk).count() == 5


def test_conversation_leaves_a_version(version, alice):
    assert datasets.redact_version(version, conversation_ids=[TALK]) == 6
    assert contributors(version).count(alice.pk) == 4
    assert VersionContributor.objects.get(version=version, contributor_id=alice.pk).conversation_id == OTHER


def test_redacting_again_finds_nothing(version, alice):
    datasets.redact_version(version, contributor_id=alice.pk)
    moment = version.redacted_at
    assert datasets.redact_version(version, contributor_id=alice.pk) == 0
    assert (version.redacted_rows, version.redacted_at) == (10, moment)


def test_version_without_such_rows_is_not_touched(version):
    files = {split: datasets.split_path(version, split).stat().st_ino for split in SPLITS}
    assert datasets.redact_version(version, contributor_id=10**9, conversation_ids=[uuid.uuid4()]) == 0
    assert {split: datasets.split_path(version, split).stat().st_ino for split in SPLITS} == files
    assert (version.redacted_at, version.rows) == (None, 65)


def test_counts_are_put_right_after_a_crash_between_files_and_database(version, alice, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(redaction, "_record", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            datasets.redact_version(version, contributor_id=alice.pk)
    version.refresh_from_db()
    assert version.rows == 65, "the database still says what was"
    assert datasets.redact_version(version, contributor_id=alice.pk) == 10
    assert (version.rows, version.content_hash) == (55, datasets.hash_files(version))


def test_after_a_withdrawal_a_new_version_is_cut_although_the_rows_are_those_of_the_old_one(version, alice):
    dataset = Dataset.objects.get()
    datasets.delete_examples(dataset.examples.filter(contributor_id=alice.pk))
    datasets.redact_version(version, contributor_id=alice.pk)
    dataset.refresh_from_db()
    assert not datasets.is_up_to_date(version)
    assert datasets.freeze_now(dataset, user=None).number == 2
