"""The admin's pages of training: everything opens for admins and for nobody else; actions go through the services."""

from __future__ import annotations

import pytest
from django.urls import reverse

from finetuning.models import (
    Dataset,
    DatasetImport,
    DatasetVersion,
    Evaluation,
    Example,
    FineTuningJob,
    ImportProblem,
    JobEvent,
    Lineage,
    Schedule,
)
from models_hub.models import PRODUCTION
from tests.finetuning.job_rows import make_job
from tests.finetuning.version_support import add_trained, make_trained_model

TABLES = [
    "dataset",
    "datasetimport",
    "example",
    "datasetversion",
    "finetuningjob",
    "schedule",
    "evaluation",
    "lineage",
]
MODELS = {
    model._meta.model_name: model
    for model in (
        Dataset,
        DatasetImport,
        Example,
        DatasetVersion,
        FineTuningJob,
        Schedule,
        Evaluation,
        Lineage,
    )
}


def url(table: str, page: str = "changelist", *arguments) -> str:
    return reverse(f"admin:finetuning_{table}_{page}", args=arguments)


@pytest.fixture
def rows(admin_user):
    """One of each."""
    version = add_trained(make_trained_model())
    dataset = Dataset.objects.get()
    source = DatasetImport.objects.create(dataset=dataset, file_name="talk.jsonl", status="running")
    ImportProblem.objects.create(source_import=source, line=3, code="empty_turn", severity="error", message="Empty.")
    content = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    Example.objects.create(dataset=dataset, content=content, content_hash="a" * 64, findings={"email": 2})
    Schedule.objects.create(
        name="Weekly", dataset=dataset, cron="0 2 * * sun", method="lora_sft", base="tiny", target="tiny"
    )
    JobEvent.objects.create(job=FineTuningJob.objects.get(), code="started", message="It began.")
    if not Evaluation.objects.exists():
        Evaluation.objects.create(version=version)
    return version


@pytest.fixture
def admin(client, admin_user):
    client.force_login(admin_user)
    return client


def act(admin, table: str, action: str, *rows, **fields) -> str:
    """What the admin is told after an action on rows of a list."""
    data = {"action": action, "_selected_action": [row.pk for row in rows], **fields}
    response = admin.post(url(table), data, follow=True)
    return " ".join(str(message) for message in response.context["messages"])


@pytest.mark.parametrize("table", TABLES)
def test_every_list_and_row_opens(admin, rows, table):
    assert admin.get(url(table)).status_code == 200
    assert admin.get(url(table, "change", MODELS[table].objects.first().pk)).status_code == 200


@pytest.mark.parametrize("table", TABLES)
def test_members_may_not_even_if_they_are_staff(client, rows, alice, table):
    alice.is_staff = True
    alice.save(update_fields=["is_staff"])
    client.force_login(alice)
    assert client.get(url(table)).status_code == 403


@pytest.mark.parametrize("table", TABLES)
def test_nothing_is_added_or_changed_by_hand(admin, rows, table):
    row = MODELS[table].objects.first()
    assert admin.get(url(table, "add")).status_code == 403
    assert admin.post(url(table, "change", row.pk), {"name": "Other"}).status_code == 403
    assert admin.post(url(table, "delete", row.pk), {"post": "yes"}).status_code == 403


def test_examples_are_approved_and_rejected_by_name(admin, rows, admin_user):
    example = Example.objects.get()
    act(admin, "example", "approve", example)
    example.refresh_from_db()
    assert (example.status, example.reviewed_by) == (Example.Status.APPROVED, admin_user)
    act(admin, "example", "reject", example)
    example.refresh_from_db()
    assert example.status == Example.Status.REJECTED


def test_freezing_too_few_rows_says_why(admin, rows):
    before = DatasetVersion.objects.count()
    assert "10" in act(admin, "dataset", "freeze", Dataset.objects.get())
    assert DatasetVersion.objects.count() == before


def test_one_job_that_cannot_be_started_does_not_stop_the_others(admin, rows, admin_user):
    version = DatasetVersion.objects.first()
    ended = FineTuningJob.objects.get(status=FineTuningJob.Status.SUCCEEDED)
    held = make_job(admin_user, FineTuningJob.Status.QUEUED, dataset_version=version, is_held=True)
    said = act(admin, "finetuningjob", "start", ended, held)
    assert "Started: 1." in said
    assert str(ended) in said
    held.refresh_from_db()
    assert not held.is_held
    act(admin, "finetuningjob", "cancel", held)
    held.refresh_from_db()
    assert held.status == FineTuningJob.Status.CANCELLED


def test_promoting_asks_for_a_reason_and_is_rolled_back(admin, rows):
    lineage, model = Lineage.objects.get(), rows.model
    assert "reason" in act(admin, "lineage", "promote", lineage)
    assert "Promoted: 1." in act(admin, "lineage", "promote", lineage, reason="Better answers.")
    assert model.aliases.get(name=PRODUCTION).version == rows
    assert "cannot" in act(admin, "lineage", "retire", lineage) or "points" in act(admin, "lineage", "retire", lineage)
    assert "Rolled back: 1." in act(admin, "lineage", "roll_back", lineage, reason="Worse on Mondays.")
    assert model.aliases.get(name=PRODUCTION).version.number == 1
    assert "Retired: 1." in act(admin, "lineage", "retire", lineage)
