"""What people take back goes: from datasets, from frozen versions, and the model versions that saw it say so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from uuid import uuid4

import pytest
from django.utils import timezone

from accounts.services import delete_user, set_training_consent
from chat import feedback
from chat.models import Conversation
from chat.services import change_conversation, delete_conversation, restore_conversation
from finetuning.conversations import withdrawal
from finetuning.conversations.contributions import get_contributions
from finetuning.conversations.examples import Filters, build_dataset
from finetuning.conversations.taken_back import keep_answers
from finetuning.conversations.withdrawal import Cleared, clear_withdrawn
from finetuning.datasets import approve, freeze_now, import_file, read_rows, run_import, split_path
from finetuning.jobs import work
from finetuning.jobs.folders import job_folder
from finetuning.jobs.states import JobFailedError, Lease
from finetuning.models import (
    Dataset,
    DatasetVersion,
    Evaluation,
    Example,
    FineTuningJob,
    JobEvent,
    Lineage,
    VersionContributor,
    Withdrawal,
)
from finetuning.versions import evaluations
from models_hub.models import Connection, ModelVersion, RegisteredModel
from tests.chat.conftest import make_conversation
from tests.conftest import make_user
from tests.finetuning.job_rows import make_base

SPLITS = ("train", "validation", "test")


@pytest.fixture
def agreeing(alice, bob):
    for person in (alice, bob):
        set_training_consent(person, agrees=True)
    return alice, bob


def rate_answers(person, count: int) -> list[Conversation]:
    talks = []
    for number in range(count):
        talk = make_conversation(person, f"{person} {number}", f"{person} asks {number}?", f"To {person}: {number}.")
        feedback.rate(talk.current_leaf, rating=1)
        if number % 2:
            feedback.correct(talk.current_leaf, f"{person} knows better: {number}.")
        talks.append(talk)
    return talks


def build(name: str, admin) -> Dataset:
    source_import = build_dataset(name, Filters(), user=admin)
    run_import(source_import.pk)
    dataset = source_import.dataset
    approve(Example.objects.filter(dataset=dataset), user=admin)
    dataset.refresh_from_db()
    return dataset


@pytest.fixture
def dataset(agreeing, admin_user) -> Dataset:
    """12 rows of alice's and 14 of bob's, frozen."""
    alice, bob = agreeing
    rate_answers(alice, 12)
    rate_answers(bob, 14)
    dataset = build("Talks", admin_user)
    freeze_now(dataset, user=admin_user)
    return dataset


def words(version: DatasetVersion) -> str:
    return "".join(split_path(version, split).read_text() for split in SPLITS)


def rows_of(version: DatasetVersion) -> list[dict]:
    return [row for split in SPLITS for row in read_rows(version, split)]


def newest(dataset: Dataset) -> DatasetVersion:
    return dataset.versions.order_by("-number").first()


def train(version: DatasetVersion, slug: str = "tuned", base: ModelVersion | None = None) -> Lineage:
    """As if a job had ended: the rows that registration writes."""
    connection, _ = Connection.objects.get_or_create(name="Here", defaults={"kind": Connection.Kind.ENGINE})
    model, _ = RegisteredModel.objects.get_or_create(slug=slug, defaults={"connection": connection})
    number = model.versions.count() + 1
    made = ModelVersion.objects.create(model=model, number=number, provider_model=f"{slug}@{number}")
    job = start_training(version, base or made)
    return Lineage.objects.create(
        version=made, job=job, dataset_version=version, base_version=base or made, method="lora_sft"
    )


def start_training(version: DatasetVersion, base: ModelVersion, **fields) -> FineTuningJob:
    return FineTuningJob.objects.create(
        method="lora_sft",
        base="tiny",
        target="tuned",
        dataset_version=version,
        base_version=base,
        status=FineTuningJob.Status.SUCCEEDED,
        started_at=timezone.now(),
        **fields,
    )


def withdraw_consent(person, talks) -> int:
    set_training_consent(person, agrees=False)
    return 12


def be_deleted(person, talks) -> int:
    make_user("another", is_staff=True, is_superuser=True)
    delete_user(person)
    return 12


def exclude_two(person, talks) -> int:
    for talk in talks[:2]:
        change_conversation(talk, is_excluded_from_training=True)
    return 2


def delete_two(person, talks) -> int:
    for talk in talks[:2]:
        delete_conversation(talk)
    return 2


WAYS = [withdraw_consent, be_deleted, exclude_two, delete_two]


@pytest.mark.parametrize("take_back", WAYS)
def test_what_is_taken_back_leaves_nothing_behind(dataset, agreeing, take_back):
    alice, _ = agreeing
    talks = list(Conversation.objects.filter(owner=alice).order_by("created_at"))
    first = newest(dataset)
    lineage = train(first)
    alice_id = alice.pk
    gone = take_back(alice, talks)
    cleared = clear_withdrawn()
    assert (cleared.examples, cleared.redacted, cleared.flagged) == (gone, [first], 1)

    assert Example.objects.filter(contributor_id=alice_id).count() == 12 - gone
    first.refresh_from_db()
    assert (first.rows, first.redacted_rows) == (26 - gone, gone)
    assert sum(row["contributor"] == alice_id for row in rows_of(first)) == 12 - gone
    assert all(words(first).count(json.dumps(f"alice asks {number}?")) == (gone == 2) for number in (5, 6))

    (second,) = cleared.cut
    assert (second.number, second.status, second.rows) == (2, "ready", 26 - gone)
    assert second.redacted_at is None
    assert (second.seed, second.shares) == (first.seed, first.shares)
    lineage.refresh_from_db()
    assert (lineage.withdrawn_at is not None, lineage.withdrawn_rows) == (True, gone)


@pytest.mark.parametrize("take_back", WAYS)
def test_clearing_again_changes_nothing(dataset, agreeing, take_back):
    alice, _ = agreeing
    train(newest(dataset))
    take_back(alice, list(Conversation.objects.filter(owner=alice)))
    clear_withdrawn()
    before = state()
    assert clear_withdrawn() == Cleared()
    assert state() == before


def state() -> list:
    models = (Example, DatasetVersion, VersionContributor, Withdrawal, Lineage)
    return [list(model.objects.order_by("pk").values()) for model in models]


def test_nothing_goes_where_nothing_was_taken_back(dataset):
    before = state()
    assert clear_withdrawn() == Cleared()
    assert state() == before


def test_rows_of_files_are_nobodys_and_stay(admin_user, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": f"Text {number}", "label": "a"}) + "\n" for number in range(12)))
    dataset = Dataset.objects.create(name="File")
    import_file(dataset, file, user=admin_user)
    version = freeze_now(dataset, user=admin_user)
    assert clear_withdrawn() == Cleared()
    version.refresh_from_db()
    assert version.rows == Example.objects.count() == 12


def test_model_that_never_saw_the_rows_is_not_flagged(dataset, agreeing, admin_user):
    alice, _ = agreeing
    set_training_consent(alice, agrees=False)
    clear_withdrawn()
    first, second = dataset.versions.order_by("number")
    later = [train(first, "later"), train(second, "clean")]  # the first one is without the rows by now
    set_training_consent(alice, agrees=True)
    clear_withdrawn()
    for lineage in later:
        lineage.refresh_from_db()
        assert (lineage.withdrawn_at, lineage.withdrawn_rows) == (None, 0)


def test_what_was_made_of_a_flagged_model_is_flagged(dataset, agreeing, admin_user):
    alice, _ = agreeing
    parent = train(newest(dataset), "parent")
    other = Dataset.objects.create(name="Other", kind="chat")
    clean = DatasetVersion.objects.create(dataset=other, number=1, kind="chat", status="ready")
    child = train(clean, "child", base=parent.version)
    set_training_consent(alice, agrees=False)
    assert clear_withdrawn().flagged == 2
    child.refresh_from_db()
    assert child.withdrawn_rows == 12


def test_training_that_was_under_way_is_flagged_when_it_has_ended(dataset, agreeing):
    alice, _ = agreeing
    base = train(newest(dataset), "base").version
    job = start_training(newest(dataset), base)
    first = newest(dataset)
    set_training_consent(alice, agrees=False)
    assert clear_withdrawn().flagged == 1
    made = ModelVersion.objects.create(model=base.model, number=9, provider_model="late")
    late = Lineage.objects.create(version=made, job=job, dataset_version=first, base_version=made, method="lora_sft")
    assert clear_withdrawn().flagged == 1
    late.refresh_from_db()
    assert late.withdrawn_rows == 12


def test_words_shown_by_trainings_go_too(dataset, agreeing, settings):
    alice, _ = agreeing
    version = newest(dataset)
    lineage = train(version)
    talks = {person: Conversation.objects.filter(owner=person).first() for person in agreeing}
    FineTuningJob.objects.filter(pk=lineage.job_id).update(preflight={"rows": 26, "samples": [{"pieces": ["secret"]}]})
    answers = [
        {"prompt": "fixed", "source": "fixed"},
        *(
            {"prompt": str(person), "source": "conversation", "contributor": person.pk, "conversation": str(talk.pk)}
            for person, talk in talks.items()
        ),
    ]
    evaluation = Evaluation.objects.create(version=lineage.version)
    keep_answers(evaluation, answers)
    evaluation.save()
    set_training_consent(alice, agrees=False)
    clear_withdrawn()
    evaluation.refresh_from_db()
    assert [answer["prompt"] for answer in evaluation.answers] == ["fixed", "bob"]
    assert [row.contributor_id for row in evaluation.contributors.all()] == [talks[agreeing[1]].owner_id]
    assert FineTuningJob.objects.get(pk=lineage.job_id).preflight == {"rows": 26, "samples": []}


def test_question_to_a_version_that_learned_from_a_file_goes_too(agreeing):
    """Nothing of it is in the version's data, so nothing is cut or flagged."""
    alice, _ = agreeing
    talk = Conversation.objects.create(owner=alice, title="Hills", model="tiny")
    evaluation = Evaluation.objects.create(version=make_base())
    answers = [{"prompt": "How high?", "contributor": alice.pk, "conversation": str(talk.pk)}, {"prompt": "fixed"}]
    keep_answers(evaluation, answers)
    evaluation.save()
    assert clear_withdrawn() == Cleared()
    change_conversation(talk, is_excluded_from_training=True)
    assert clear_withdrawn() == Cleared()
    evaluation.refresh_from_db()
    assert evaluation.answers == [{"prompt": "fixed"}]


def test_what_a_crash_printed_goes_too(dataset, agreeing):
    lineage = train(newest(dataset))
    jobs = FineTuningJob.objects.filter(pk=lineage.job_id)
    jobs.update(status="failed", error_code="unexpected", error_message="KeyError: 'secret'", error_details={"a": "b"})
    JobEvent.objects.create(job_id=lineage.job_id, code="failed", message="KeyError: 'secret'")
    printed = job_folder(lineage.job_id) / "run" / "log.txt"
    printed.parent.mkdir(parents=True)
    printed.write_text("KeyError: 'secret'")
    set_training_consent(agreeing[0], agrees=False)
    clear_withdrawn()
    job = jobs.get()
    assert "secret" not in job.error_message + job.events.get(code="failed").message
    assert (job.error_details, printed.exists()) == ({}, False)


def test_no_version_is_cut_of_too_few_rows_and_nobody_tries_for_ever(agreeing, admin_user):
    alice, bob = agreeing
    rate_answers(alice, 12)
    rate_answers(bob, 2)
    dataset = build("Few", admin_user)
    freeze_now(dataset, user=admin_user)
    set_training_consent(alice, agrees=False)
    assert clear_withdrawn().cut == []
    assert clear_withdrawn() == Cleared()
    assert (dataset.versions.count(), newest(dataset).rows) == (1, 2)


def test_older_version_is_cleared_without_a_new_one(dataset, agreeing, admin_user):
    alice, _ = agreeing
    Example.objects.filter(dataset=dataset, contributor_id=alice.pk).delete()
    freeze_now(dataset, user=admin_user)
    set_training_consent(alice, agrees=False)
    cleared = clear_withdrawn()
    assert ([version.number for version in cleared.redacted], cleared.cut) == ([1], [])


def test_consent_given_again_brings_nothing_back(dataset, agreeing):
    alice, _ = agreeing
    set_training_consent(alice, agrees=False)
    clear_withdrawn()
    set_training_consent(alice, agrees=True)
    assert clear_withdrawn() == Cleared()
    assert not Example.objects.filter(contributor_id=alice.pk).exists()


def test_new_version_is_cut_once_although_an_older_one_holds_the_same(agreeing, admin_user):
    alice, bob = agreeing
    rate_answers(alice, 12)
    dataset = build("Talks", admin_user)
    freeze_now(dataset, user=admin_user)
    rate_answers(bob, 14)
    run_import(build_dataset(dataset, Filters(), user=admin_user).pk)
    approve(Example.objects.filter(dataset=dataset), user=admin_user)
    freeze_now(dataset, user=admin_user)
    set_training_consent(bob, agrees=False)
    assert [fresh.number for fresh in clear_withdrawn().cut] == [3]
    assert clear_withdrawn() == Cleared()


def test_version_whose_files_are_gone_does_not_keep_the_words_of_others(dataset, agreeing, admin_user):
    other = build("The same again", admin_user)
    version = freeze_now(other, user=admin_user)
    shutil.rmtree(split_path(newest(dataset), "train").parent)
    set_training_consent(agreeing[0], agrees=False)
    assert clear_withdrawn().redacted == [version]
    assert "alice" not in words(version)


# --- crossings --------------------------------------------------------------------------------------------------------


def test_withdrawal_during_a_build_is_found_by_the_next_clearing(agreeing, admin_user, monkeypatch):
    """The rows of a batch are read, consent ends, and only then are they stored."""
    alice, bob = agreeing
    rate_answers(alice, 3)
    rate_answers(bob, 3)
    import finetuning.conversations.examples as conversations

    original = conversations.iterate_drafts

    def end_consent_after_reading(filters) -> Iterator:
        drafts = list(original(filters))
        set_training_consent(alice, agrees=False)
        clear_withdrawn()  # the nudge comes before the rows are there
        yield from drafts

    monkeypatch.setattr(conversations, "iterate_drafts", end_consent_after_reading)
    build("Crossing", admin_user)
    assert clear_withdrawn().examples == 3
    assert set(Example.objects.values_list("contributor_id", flat=True)) == {bob.pk}


def test_withdrawal_during_a_freeze_is_found_by_the_next_clearing(agreeing, admin_user, monkeypatch):
    """The rows are written into the version's files, consent ends, and only then is the version ready."""
    alice, bob = agreeing
    rate_answers(alice, 12)
    rate_answers(bob, 14)
    dataset = build("Crossing", admin_user)
    from finetuning.datasets import freezing

    original = freezing._finish

    def end_consent_first(*args) -> None:
        set_training_consent(alice, agrees=False)
        cleared = clear_withdrawn()
        assert (cleared.examples, cleared.redacted) == (12, [])  # the version is not ready: its turn comes
        original(*args)

    monkeypatch.setattr(freezing, "_finish", end_consent_first)
    version = freeze_now(dataset, user=admin_user)
    monkeypatch.undo()
    assert "alice" in words(version)
    cleared = clear_withdrawn()
    assert (cleared.redacted, [fresh.number for fresh in cleared.cut]) == ([version], [2])
    assert "alice" not in words(version) + words(newest(dataset))


def answers_to(version: DatasetVersion) -> list[dict]:
    """As an evaluation of it brings them: of a fixed prompt and of all rows."""
    own = [
        {"prompt": str(row["content"]), "contributor": row["contributor"], "conversation": row["conversation"]}
        for row in rows_of(version)
    ]
    return [{"prompt": "fixed"}, *own]


@pytest.mark.parametrize("is_cleared", [True, False])
def test_withdrawal_during_an_evaluation_keeps_nothing_of_it(dataset, agreeing, admin_user, is_cleared):
    version = newest(dataset)
    lineage = train(version)
    answers = answers_to(version)
    FineTuningJob.objects.filter(pk=lineage.job_id).update(
        status="running", owner_token=uuid4(), created_by=admin_user, result_version=lineage.version
    )
    job = FineTuningJob.objects.get(pk=lineage.job_id)
    evaluation = Evaluation.objects.create(version=lineage.version, job=job)
    set_training_consent(agreeing[0], agrees=False)
    if is_cleared:
        clear_withdrawn()
    evaluations._keep(job, lineage.version, evaluation, Lease(job.pk, job.owner_token), {"answers": answers})
    evaluation.refresh_from_db()
    assert "alice" not in str(evaluation.answers)
    assert len(evaluation.answers) == 15


@pytest.mark.parametrize("is_cleared", [True, False])
@pytest.mark.parametrize("errors", [[], [{"code": "too_few", "message": "Too few."}]])
def test_withdrawal_during_a_check_keeps_no_samples_of_it(dataset, agreeing, is_cleared, errors):
    lineage, token, began = train(newest(dataset)), uuid4(), timezone.now()
    FineTuningJob.objects.filter(pk=lineage.job_id).update(status="validating_files", owner_token=token)
    job = FineTuningJob.objects.select_related("dataset_version").get(pk=lineage.job_id)
    set_training_consent(agreeing[0], agrees=False)
    if is_cleared:
        clear_withdrawn()
    report = {"rows": 26, "errors": errors, "samples": [{"pieces": [{"text": "alice asks"}]}]}
    with pytest.raises(JobFailedError) if errors else nullcontext():
        work._keep_report(job, Lease(job.pk, token), report, began)
    job.refresh_from_db()
    assert job.preflight == {"rows": 26, "errors": errors, "samples": []}


def test_samples_stay_where_nothing_was_taken_back(dataset):
    lineage, token = train(newest(dataset)), uuid4()
    FineTuningJob.objects.filter(pk=lineage.job_id).update(status="validating_files", owner_token=token)
    job = FineTuningJob.objects.select_related("dataset_version").get(pk=lineage.job_id)
    work._keep_report(job, Lease(job.pk, token), {"samples": ["a row"]}, timezone.now())
    job.refresh_from_db()
    assert (job.status, job.preflight) == ("queued", {"samples": ["a row"]})


def test_files_of_a_job_that_waits_are_cleared_too(dataset, agreeing):
    """A held job may wait for weeks after its check."""
    lineage = train(newest(dataset))
    FineTuningJob.objects.filter(pk=lineage.job_id).update(status="queued", is_held=True)
    folder = job_folder(lineage.job_id) / "preflight"
    folder.mkdir(parents=True)
    set_training_consent(agreeing[0], agrees=False)
    clear_withdrawn()
    assert not folder.exists()


@pytest.mark.parametrize("step", ["redact_version", "_flag_lineages", "_cut", "delete_examples"])
def test_worker_that_dies_at_any_step_leaves_work_that_can_be_ended(dataset, agreeing, monkeypatch, step):
    alice, _ = agreeing
    lineage = train(newest(dataset))
    set_training_consent(alice, agrees=False)

    def die(*args, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(withdrawal, step, die)
    with pytest.raises(KeyboardInterrupt):
        clear_withdrawn()
    monkeypatch.undo()
    clear_withdrawn()
    lineage.refresh_from_db()
    assert lineage.withdrawn_rows == 12
    assert [version.rows for version in dataset.versions.order_by("number")] == [14, 14]
    assert not any("alice" in words(version) for version in dataset.versions.all())
    assert clear_withdrawn() == Cleared()


def test_two_at_once_do_it_once(dataset, agreeing, monkeypatch):
    alice, _ = agreeing
    set_training_consent(alice, agrees=False)
    inner: list[Cleared] = []
    original = withdrawal._redact
    monkeypatch.setattr(withdrawal, "_redact", lambda version: (inner.append(clear_withdrawn()), original(version)))
    assert len(clear_withdrawn().cut) == 1
    assert inner == [Cleared()]


# --- the nudge --------------------------------------------------------------------------------------------------------


@pytest.fixture
def nudges(monkeypatch) -> list[str]:
    sent: list[str] = []
    monkeypatch.setattr("chat.nudges.app.send_task", lambda name, **options: sent.append(name))
    return sent


@pytest.mark.parametrize("take_back", WAYS)
def test_taking_back_asks_for_clearing_at_once(agreeing, nudges, take_back, django_capture_on_commit_callbacks):
    alice, _ = agreeing
    talks = rate_answers(alice, 2)
    with django_capture_on_commit_callbacks(execute=True):
        take_back(alice, talks)
    assert set(nudges) == {"finetuning.tasks.clear_withdrawn"}


def test_task_of_the_nudge_exists(settings):
    from chat.nudges import CLEAR_WITHDRAWN
    from config.celery import app

    app.autodiscover_tasks(force=True)
    assert CLEAR_WITHDRAWN in app.tasks
    assert settings.CELERY_BEAT_SCHEDULE["clear-withdrawn"]["task"] == CLEAR_WITHDRAWN
    assert settings.CELERY_BEAT_SCHEDULE["clear-withdrawn"]["schedule"].total_seconds() <= 60


def test_agreeing_and_restoring_ask_for_nothing(alice, nudges, django_capture_on_commit_callbacks):
    talk = make_conversation(alice, "Rivers", "Which?", "The Nile.")
    with django_capture_on_commit_callbacks(execute=True):
        set_training_consent(alice, agrees=True)
        change_conversation(talk, is_excluded_from_training=False)
        restore_conversation(talk)
    assert nudges == []


def test_broker_that_is_away_does_not_stop_a_withdrawal(agreeing, monkeypatch, django_capture_on_commit_callbacks):
    from kombu.exceptions import OperationalError

    def fail(*args, **options):
        raise OperationalError

    monkeypatch.setattr("chat.nudges.app.send_task", fail)
    with django_capture_on_commit_callbacks(execute=True):
        set_training_consent(agreeing[0], agrees=False)
    agreeing[0].refresh_from_db()
    assert agreeing[0].training_consent_at is None


# --- what people see of it --------------------------------------------------------------------------------------------


def test_contributions_tell_where_ones_answers_went(dataset, agreeing, client):
    alice, _ = agreeing
    lineage = train(newest(dataset))
    found = get_contributions(user=alice)
    assert (found.waiting, len(found.versions), len(found.models)) == (12, 1, 1)
    assert (found.versions[0].part.rows, found.versions[0].part.corrections) == (12, 6)
    assert (found.models[0].version, found.models[0].part.corrections) == (lineage.version, 6)
    client.force_login(alice)
    text = client.get("/settings/contributions/", headers={"HX-Request": "true"}).content.decode()
    assert "Your 6 corrections and 6 judged answers went into" in text and "tuned@1" in text
    assert "Talks" in text


def test_contributions_remember_what_was_learned_before_a_withdrawal(dataset, agreeing):
    alice, _ = agreeing
    train(newest(dataset))
    set_training_consent(alice, agrees=False)
    clear_withdrawn()
    train(newest(dataset), "clean")
    found = get_contributions(user=alice)
    assert (found.waiting, found.versions) == (0, [])
    (model,) = found.models
    assert (str(model.version), model.part.rows, model.taken_back) == ("tuned@1", 12, 12)


def test_nobody_sees_anothers_part(dataset, agreeing, charlie, client):
    train(newest(dataset))
    client.force_login(charlie)
    text = client.get("/settings/contributions/").content.decode()
    assert "Nothing of yours" in text
    assert "Talks" not in text and "tuned" not in text


def test_contributions_take_few_queries(dataset, agreeing, django_assert_max_num_queries):
    for _ in range(5):
        train(newest(dataset))
    with django_assert_max_num_queries(5):
        assert len(get_contributions(user=agreeing[0]).models) == 5
