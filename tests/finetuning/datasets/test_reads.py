"""Who sees datasets, what pages read of them, the difference of two versions, and what is tidied up."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser, Permission
from django.utils import timezone

from chat.errors import BusyError, ForbiddenError, InvalidError, NotFoundError, TooLongError
from finetuning import datasets
from finetuning.datasets import care, imports, selectors
from finetuning.datasets.folders import dataset_folder, upload_path
from finetuning.formats import ChatExample, Message
from finetuning.models import Dataset, DatasetImport, DatasetVersion, Example, FineTuningJob
from models_hub.models import Connection, ModelVersion, RegisteredModel
from tests.finetuning.datasets.support import chat_draft, chat_lines, chat_row, fill, labelled_draft, upload


@pytest.fixture
def curator(bob):
    bob.user_permissions.add(Permission.objects.get(codename="curate"))
    return type(bob).objects.get(pk=bob.pk)


@pytest.fixture
def row(dataset) -> Example:
    fill(dataset, [chat_draft(number) for number in range(1, 21)])
    return Example.objects.get(line=1)


@pytest.mark.parametrize("read", ["list", "get", "find", "import", "example", "examples"])
def test_members_and_strangers_read_nothing(dataset, row, alice, read):
    source_import = upload(dataset, "\n".join(chat_lines(3)).encode())
    reads = {
        "list": lambda user: datasets.list_datasets(user=user),
        "get": lambda user: datasets.get_dataset(dataset.pk, user=user),
        "find": lambda user: datasets.find_dataset(dataset.name, user=user),
        "import": lambda user: datasets.get_import(source_import.pk, user=user),
        "example": lambda user: datasets.get_example(row.pk, user=user),
        "examples": lambda user: datasets.list_examples(dataset, user=user),
    }
    for user in (alice, AnonymousUser()):
        with pytest.raises(ForbiddenError):
            reads[read](user)


def test_curator_and_admin_read(dataset, curator, admin_user):
    for user in (curator, admin_user):
        assert datasets.get_dataset(dataset.pk, user=user) == dataset


def test_datasets_are_paged_the_latest_changed_first(db, curator):
    made = [datasets.create_dataset(f"Set {number}", user=curator) for number in range(5)]
    fill(made[1], [chat_draft(1)])
    first = datasets.list_datasets(user=curator, limit=3)
    rest = datasets.list_datasets(user=curator, limit=3, cursor=first.next_cursor)
    assert [dataset.name for dataset in (*first.items, *rest.items)] == ["Set 1", "Set 4", "Set 3", "Set 2", "Set 0"]
    assert rest.next_cursor is None
    assert first.items[0].counts == {"pending": 0, "approved": 1, "rejected": 0}


@pytest.mark.parametrize("dataset_id", [0, -1, 10**30])
def test_dataset_that_is_not_there_is_not_found(curator, dataset_id):
    with pytest.raises(NotFoundError):
        datasets.get_dataset(dataset_id, user=curator)


def test_rows_are_found_by_what_they_say_in_any_script(dataset, curator):
    talks = [("Grüße aus Köln", "a"), ('100 % "sure"', "b"), ("привет", "c"), ("back\\slash", "d")]
    fill(
        dataset,
        [datasets.Draft(ChatExample((Message("user", text), Message("assistant", name)))) for text, name in talks],
    )
    for query in ("Köln", "köln"[1:], '% "sure', "приве", "k\\sl"):
        found = datasets.list_examples(dataset, user=curator, query=query).items
        assert len(found) == 1, query
    assert datasets.list_examples(dataset, user=curator, query="nothing like it").items == []


def test_rows_are_filtered_and_paged(dataset, curator):
    mail = ChatExample((Message("user", "Who?"), Message("assistant", "jane@example.com")))
    fill(dataset, [chat_draft(number) for number in range(10)])
    fill(dataset, [datasets.Draft(mail, origin=datasets.Origin.CORRECTION)], is_approved=False)
    for filters in ({"finding": "any"}, {"finding": "email"}, {"origin": "correction"}, {"status": "pending"}):
        assert [row.content for row in datasets.list_examples(dataset, user=curator, **filters).items] == [
            mail.to_dict()
        ]
    assert datasets.list_examples(dataset, user=curator, finding="iban").items == []
    first = datasets.list_examples(dataset, user=curator, limit=6)
    rest = datasets.list_examples(dataset, user=curator, limit=6, cursor=first.next_cursor)
    assert [len(first.items), len(rest.items)] == [6, 5]
    assert rest.items[0].pk > first.items[-1].pk


@pytest.mark.parametrize("filters", [{"status": "odd"}, {"finding": "odd"}, {"origin": "odd"}, {"cursor": "odd"}])
def test_filter_that_is_not_there_is_refused(dataset, curator, filters):
    with pytest.raises(InvalidError):
        datasets.list_examples(dataset, user=curator, **filters)


def test_description_counts_measures_and_warns(dataset, alice):
    fill(dataset, [labelled_draft(number, "good" if number else "bad") for number in range(40)])
    datasets.reject(Example.objects.filter(line__gte=30), user=alice)
    found = datasets.describe_dataset(dataset)
    assert (found["total"], found["counts"]["rejected"], found["is_sample"]) == (40, 10, False)
    assert found["labels"] == {"good": 29, "bad": 1}
    assert found["lengths"]["count"] == 30
    assert len(found["warnings"]) == 2
    assert datasets.list_labels(dataset) == ["good", "bad"]


def test_large_dataset_is_described_by_a_sample(dataset, monkeypatch):
    fill(dataset, [labelled_draft(number, "good") for number in range(100)])
    monkeypatch.setattr(selectors, "MEASURED_ROWS", 10)
    found = datasets.describe_dataset(dataset)
    assert (found["is_sample"], found["total"], found["lengths"]["count"]) == (True, 100, 10)


def test_difference_of_two_versions_shows_rows(dataset, alice):
    fill(dataset, [chat_draft(number) for number in range(1, 41)])
    old = datasets.freeze_now(dataset, user=None)
    datasets.reject(Example.objects.filter(line__in=[1, 2]), user=alice)
    fill(dataset, [chat_draft(100)])
    new = datasets.freeze_now(dataset, user=None)
    found = datasets.diff_versions(old, new)
    assert (found.added, found.removed, found.kept, found.is_reordered) == (1, 2, 38, False)
    assert [row["content"] for row in found.added_rows] == [chat_row(100)]
    assert [row["content"] for row in found.removed_rows] == [chat_row(1), chat_row(2)]
    assert datasets.get_version_before(new) == old
    same = datasets.diff_versions(new, new)
    assert (same.added, same.removed, same.moved) == (0, 0, 0)


def test_versions_of_two_datasets_are_not_compared(dataset):
    one = datasets.freeze_now(fill(dataset, map(chat_draft, range(11))), user=None)
    two = datasets.freeze_now(fill(datasets.create_dataset("B", user=None), map(chat_draft, range(11))), user=None)
    with pytest.raises(InvalidError, match="same dataset"):
        datasets.diff_versions(one, two)
    DatasetVersion.objects.filter(pk=one.pk).update(status="failed")
    one.refresh_from_db()
    with pytest.raises(InvalidError, match="not ready"):
        datasets.diff_versions(one, one)


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\x00b"])
def test_name_that_cannot_be_is_refused(db, name):
    with pytest.raises(InvalidError):
        datasets.create_dataset(name, user=None)


def test_name_is_given_once(dataset):
    with pytest.raises(InvalidError, match="There is a dataset named “Rivers” already"):
        datasets.create_dataset(" Rivers ", user=None)
    other = datasets.create_dataset("Lakes", user=None)
    with pytest.raises(InvalidError, match="Rivers"):
        datasets.rename_dataset(other, name="Rivers")
    assert datasets.rename_dataset(other, name="Seas", description="Wide.").description == "Wide."


def test_deleted_dataset_frees_its_name_and_is_not_found(dataset, curator):
    datasets.delete_dataset(dataset)
    with pytest.raises(NotFoundError):
        datasets.get_dataset(dataset.pk, user=curator)
    assert datasets.list_datasets(user=curator).items == []
    datasets.create_dataset("Rivers", user=None)


def make_job(version: DatasetVersion, status: str) -> FineTuningJob:
    connection = Connection.objects.create(name="Here", kind=Connection.Kind.ENGINE)
    model = RegisteredModel.objects.create(slug="tiny", name="Tiny", connection=connection)
    base = ModelVersion.objects.create(model=model, number=1, provider_model="tiny")
    return FineTuningJob.objects.create(
        dataset_version=version, base_version=base, method="lora_sft", base="tiny", target="tuned", status=status
    )


def test_dataset_is_deleted_whatever_others_are_called(dataset):
    datasets.create_dataset(f"{dataset.name} (deleted, {dataset.pk})", user=None)
    datasets.delete_dataset(dataset)
    assert dataset.deleted_at is not None


def test_description_of_megabytes_is_refused(dataset):
    for change in (
        lambda text: datasets.create_dataset("Lakes", user=None, description=text),
        lambda text: datasets.rename_dataset(dataset, description=text),
    ):
        with pytest.raises(TooLongError):
            change("x" * 1_000_000)


def test_dataset_in_use_by_a_training_is_not_deleted(dataset):
    version = datasets.freeze_now(fill(dataset, map(chat_draft, range(11))), user=None)
    job = make_job(version, "running")
    with pytest.raises(BusyError, match="Cancel it first"):
        datasets.delete_dataset(dataset)
    FineTuningJob.objects.filter(pk=job.pk).update(status="succeeded")
    datasets.delete_dataset(dataset)
    assert dataset.deleted_at is not None


def delete_long_ago(dataset: Dataset) -> None:
    datasets.delete_dataset(dataset)
    Dataset.objects.filter(pk=dataset.pk).update(deleted_at=timezone.now() - care.PURGED_AFTER - timedelta(days=1))


def test_deleted_dataset_is_purged_after_a_month(dataset):
    datasets.freeze_now(fill(dataset, map(chat_draft, range(11))), user=None)
    other = fill(datasets.create_dataset("B", user=None), [chat_draft(1)])
    datasets.delete_dataset(other)
    delete_long_ago(dataset)
    care.clean_up()
    assert list(Dataset.objects.all()) == [other]
    assert not dataset_folder(dataset.pk).exists()


def test_purged_dataset_keeps_the_versions_that_models_come_from(dataset):
    version = datasets.freeze_now(fill(dataset, map(chat_draft, range(11))), user=None)
    make_job(version, "succeeded")
    delete_long_ago(dataset)
    care.clean_up()
    assert not Example.objects.exists()
    assert len(list(datasets.read_rows(version, "train"))) == 10


def test_rows_left_by_an_import_that_did_not_succeed_are_removed(dataset):
    fill(dataset, [chat_draft(number) for number in range(300)])
    failed = DatasetImport.objects.create(dataset=dataset, status="failed", rows_added=250)
    Example.objects.filter(line__lt=250).update(source_import=failed)
    care.clean_up()
    failed.refresh_from_db()
    assert (Example.objects.count(), failed.rows_added) == (50, 0)


def test_upload_nobody_goes_on_with_is_thrown_away(dataset):
    old, new = (datasets.start_upload(dataset, file_name="a.jsonl", size=10, user=None) for _ in range(2))
    moment = time.time() - imports.ABANDONED_AFTER.total_seconds() - 60
    os.utime(upload_path(old.pk), (moment, moment))
    stray = upload_path(old.pk).with_name("stray")
    stray.touch()
    os.utime(stray, (moment, moment))
    care.clean_up()
    assert DatasetImport.objects.get(pk=old.pk).status == "cancelled"
    assert DatasetImport.objects.get(pk=new.pk).status == "receiving"
    assert [path.exists() for path in (upload_path(old.pk), stray, upload_path(new.pk))] == [False, False, True]
