"""The admin's pages of training: everything opens for admins and for nobody else; actions go through the services."""

from __future__ import annotations

import pytest
from django.urls import reverse

from finetuning import datasets
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
from models_hub import services
from models_hub.models import PRODUCTION, ModelVersion, RegisteredModel
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
    app = "models_hub" if table == "modelversion" else "finetuning"
    return reverse(f"admin:{app}_{table}_{page}", args=arguments)


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


def send(client, table: str, action: str, *rows, **fields):
    return client.post(url(table), {"action": action, "_selected_action": [row.pk for row in rows], **fields})


def act(admin, table: str, action: str, *rows, **fields) -> str:
    """What the admin is told after an action on rows of a list."""
    response = admin.get(send(admin, table, action, *rows, **fields)["Location"])
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


@pytest.mark.parametrize("table", ["lineage", "modelversion"])
def test_promoting_asks_for_a_reason_and_is_rolled_back(admin, admin_user, rows, table):
    row, model = (Lineage.objects.get() if table == "lineage" else rows), rows.model
    assert "reason" in act(admin, table, "promote", row)
    assert "Promoted: 1." in act(admin, table, "promote", row, reason="Better answers.")
    assert model.aliases.get(name=PRODUCTION).version == rows
    event = model.alias_events.first()
    assert (event.actor, event.reason) == (admin_user, "Better answers.")
    assert "points at version 2" in act(admin, table, "retire", row)
    assert "Rolled back: 1." in act(admin, table, "roll_back", row, reason="Worse on Mondays.")
    assert model.aliases.get(name=PRODUCTION).version.number == 1
    assert "Retired: 1." in act(admin, table, "retire", row)
    rows.refresh_from_db()
    assert rows.retired_at is not None


def test_version_that_was_not_trained_here_is_promoted_and_retired_too(admin, rows):
    model = rows.model
    other = services.add_version(model)
    assert "Promoted: 1." in act(admin, "modelversion", "promote", other, reason="From elsewhere.")
    assert model.aliases.get(name=PRODUCTION).version == other
    assert "moved meanwhile" in act(admin, "modelversion", "roll_back", rows, reason="Not the one there.")
    assert "Rolled back: 1." in act(admin, "modelversion", "roll_back", other, reason="Worse.")
    assert "Retired: 1." in act(admin, "modelversion", "retire", other)
    other.refresh_from_db()
    assert other.retired_at is not None


def test_versions_are_compared_on_their_own_page(admin, rows):
    page = reverse("versions:compare", args=[rows.model.slug])
    first, lineage = rows.model.versions.get(number=1), Lineage.objects.get()
    assert send(admin, "modelversion", "compare", rows)["Location"] == f"{page}?version=2"
    assert send(admin, "lineage", "compare", lineage)["Location"] == f"{page}?version=2"
    both = send(admin, "modelversion", "compare", first, rows)["Location"]
    assert both == f"{page}?version=2&other=1"
    assert admin.get(both).status_code == 200


def test_what_cannot_be_compared_says_why(admin, rows):
    first, third = rows.model.versions.get(number=1), services.add_version(rows.model)
    other = services.add_version(make_trained_model("other"))
    assert "nothing to compare" in act(admin, "modelversion", "compare", first)  # it is in production itself
    assert "two of the same model" in act(admin, "modelversion", "compare", rows, other)
    assert "two of the same model" in act(admin, "modelversion", "compare", first, rows, third)
    RegisteredModel.objects.filter(pk=rows.model_id).update(is_enabled=False)
    assert "no model" in act(admin, "modelversion", "compare", rows)


def test_datasets_are_validated_in_a_sentence_each(admin, rows):
    dataset = Dataset.objects.get()
    other = Dataset.objects.create(name="Moods", kind=Dataset.Kind.CLASSIFICATION)
    for number in range(20):
        label = "good" if number else "bad"
        Example.objects.create(dataset=other, content_hash=f"{number:064}", content={}, label=label, status="approved")
    said = act(admin, "dataset", "validate", dataset, other)
    assert f"{dataset}: 0 rows approved, 1 to review, 1 with personal data." in said
    assert "Moods: 20 rows approved, 0 to review, 0 with personal data." in said
    [warning] = datasets.describe_dataset(other)["warnings"]
    assert warning in said


def test_dataset_version_is_validated_by_a_job_that_is_checked_first(admin, rows):
    version = DatasetVersion.objects.get()
    assert "one version that is ready" in act(admin, "datasetversion", "validate", version)
    DatasetVersion.objects.update(status=DatasetVersion.Status.READY, kind=Dataset.Kind.CLASSIFICATION)
    page = send(admin, "datasetversion", "validate", version)["Location"]
    assert page == f"/jobs/new/?method=classification&data_source=version-{version.pk}"
    assert "Check first" in admin.get(page).content.decode()


def test_dataset_versions_are_compared_on_their_own_page(admin, rows):
    old = DatasetVersion.objects.get()
    new = DatasetVersion.objects.create(dataset=old.dataset, number=old.number + 1)
    page = reverse("datasets:diff", args=[old.dataset_id])
    assert send(admin, "datasetversion", "compare", old, new)["Location"] == f"{page}?old=2&new=3"
    assert "two versions" in act(admin, "datasetversion", "compare", old)
    other = DatasetVersion.objects.create(dataset=Dataset.objects.create(name="Other"), number=9)
    assert "same dataset" in act(admin, "datasetversion", "compare", old, other)


def test_job_is_validated_on_its_preflight_page(admin, rows, admin_user):
    job = FineTuningJob.objects.get()
    page = send(admin, "finetuningjob", "validate", job)["Location"]
    assert page == reverse("jobs:preflight", args=[job.pk])
    assert admin.get(page).status_code == 200
    other = make_job(admin_user, FineTuningJob.Status.FAILED, dataset_version=DatasetVersion.objects.first())
    assert "one job" in act(admin, "finetuningjob", "validate", job, other)


@pytest.mark.parametrize(
    ("table", "action"),
    [
        *(("modelversion", action) for action in ("promote", "roll_back", "retire", "compare")),
        *(("lineage", action) for action in ("promote", "roll_back", "retire", "compare")),
        *(("dataset", "validate"), ("datasetversion", "validate"), ("datasetversion", "compare")),
        ("finetuningjob", "validate"),
    ],
)
def test_members_act_on_nothing_even_if_they_are_staff(client, rows, alice, table, action):
    alice.is_staff = True
    alice.save(update_fields=["is_staff"])
    client.force_login(alice)
    row = {**MODELS, "modelversion": ModelVersion}[table].objects.first()
    assert send(client, table, action, row, reason="Because.").status_code == 403
    assert rows.model.aliases.get(name=PRODUCTION).version.number == 1
    assert not ModelVersion.objects.exclude(retired_at=None).exists()
