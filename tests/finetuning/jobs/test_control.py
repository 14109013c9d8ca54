"""What people do with jobs: made once however often one clicks, cancelled in every state, resumed, tried again."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from chat.errors import ForbiddenError, InvalidError
from finetuning.jobs import cancel_job, create_job, resume_job, retry_job, set_priority, start_job
from finetuning.jobs.specs import resolved
from finetuning.jobs.states import Status
from finetuning.models import FineTuningJob
from models_hub.models import Connection, RegisteredModel
from tests.finetuning.ground import QUICK, make_model
from tests.finetuning.job_rows import PREFLIGHT, make_job, make_result
from tests.finetuning.jobs.test_leases import at_once

pytestmark = pytest.mark.django_db(transaction=True)


def new_job(user, version, **values) -> FineTuningJob:
    arguments = {"user": user, "method": "lora_sft", "base": "tiny-chat", "dataset_version": version}
    return create_job(**arguments | values)


# --- making -----------------------------------------------------------------------------------------------------------


def test_double_click_makes_one_job(admin_user, base, conversations):
    made = at_once([lambda: new_job(admin_user, conversations, request_key="click")] * 6)
    assert len({job.pk for job in made}) == 1
    assert FineTuningJob.objects.count() == 1


def test_same_key_of_another_person_is_another_job(admin_user, alice, base, conversations):
    alice.is_superuser = True
    alice.save()
    assert new_job(admin_user, conversations, request_key="k").pk != new_job(alice, conversations, request_key="k").pk


def test_member_makes_no_job(alice, base, conversations):
    with pytest.raises(ForbiddenError):
        new_job(alice, conversations)


def test_dataset_without_a_version_is_frozen_once(admin_user, base, conversations):
    dataset = conversations.dataset
    first = create_job(user=admin_user, method="lora_sft", base="tiny-chat", dataset=dataset)
    assert first.dataset_version == conversations  # nothing has changed since
    dataset.examples.filter(pk=dataset.examples.first().pk).delete()
    dataset.updated_at = timezone.now()
    dataset.save()
    second = create_job(user=admin_user, method="lora_sft", base="tiny-chat", dataset=dataset)
    third = create_job(user=admin_user, method="lora_sft", base="tiny-chat", dataset=dataset)
    assert second.dataset_version.number == 2
    assert third.dataset_version == second.dataset_version


def test_job_for_later_waits(admin_user, base, conversations):
    job = new_job(admin_user, conversations, run_at=timezone.now() + timedelta(hours=1))
    assert job.status == Status.SCHEDULED
    start_job(job)
    job.refresh_from_db()
    assert (job.status, job.run_at) == (Status.VALIDATING_FILES, None)


def test_target_is_suggested_and_never_the_base(admin_user, base, conversations):
    assert new_job(admin_user, conversations).target == "tiny-chat-code-words"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"method": "magic"}, "no method 'magic'"),
        ({"base": "nobody"}, "no model 'nobody'"),
        ({"base": "tiny-chat@7"}, "no version '7'"),
        ({"base": "remote"}, "only models of this installation's engine"),
        ({"base": "gone"}, "not on this machine"),
        ({"method": "dpo"}, "needs preference pairs"),
        ({"method": "classification"}, "needs another"),
        ({"target": "remote"}, "name of its own"),
        ({"target": "sentiment"}, "name of its own"),
        ({"target": "../up"}, "cannot be the name"),
        ({"target": "hub"}, "the model cache keeps downloads"),
        ({"hyperparameters": {"max_steps": 10**30}}, "max_steps must be at most"),
        ({"hyperparameters": {"learning_rate": "fast"}}, "hyperparameters are not valid"),
        ({"hyperparameters": {"learning_rat": 1}}, "Unknown hyperparameters: learning_rat"),
        ({"sample_prompts": ["x"] * 11}, "At most 10"),
        ({"priority": 5000}, "priority must be"),
    ],
)
def test_what_cannot_work_is_said_at_once(admin_user, base, conversations, values, sentence):
    remote = Connection.objects.create(name="OpenAI", kind=Connection.Kind.OPENAI_CHAT)
    RegisteredModel.objects.create(slug="remote", name="Remote", connection=remote)
    make_model("gone")
    make_model("sentiment", task="classification", source="tiny-encoder")
    with pytest.raises(InvalidError, match=sentence):
        new_job(admin_user, conversations, **values)
    assert not FineTuningJob.objects.exists()


def test_base_that_is_not_for_this_person_does_not_exist(alice, base, conversations):
    from django.contrib.auth.models import Group, Permission

    alice.user_permissions.add(Permission.objects.get(codename="curate"))
    base.groups.add(Group.objects.create(name="few"))
    alice = type(alice).objects.get(pk=alice.pk)
    with pytest.raises(InvalidError, match="no model 'tiny-chat' that you may use"):
        new_job(alice, conversations)


# --- cancelling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.SCHEDULED, Status.VALIDATING_FILES, Status.QUEUED])
def test_what_nobody_works_for_is_cancelled_at_once(alice, status):
    job = cancel_job(make_job(alice, status))
    assert (job.status, job.owner_token) == (Status.CANCELLED, None)
    assert job.finished_at is not None


@pytest.mark.parametrize("status", [Status.VALIDATING_FILES, Status.RUNNING])
def test_what_somebody_works_for_is_asked_to_end(alice, status):
    token = uuid4()
    job = cancel_job(make_job(alice, status, owner_token=token, heartbeat_at=timezone.now()))
    assert (job.status, job.owner_token) == (Status.CANCELLING, token)
    again = cancel_job(job)
    assert again.status == Status.CANCELLING
    assert [event.code for event in job.events.all()] == ["cancelling"]


@pytest.mark.parametrize("status", [Status.VALIDATING_FILES, Status.RUNNING])
def test_what_a_dead_worker_worked_for_is_cancelled_at_once(alice, status):
    long_ago = timezone.now() - timedelta(seconds=30)
    job = cancel_job(make_job(alice, status, owner_token=uuid4(), heartbeat_at=long_ago))
    assert (job.status, job.owner_token) == (Status.CANCELLED, None)


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.CANCELLED])
def test_what_has_ended_stays_as_it_ended(alice, status):
    assert cancel_job(make_job(alice, status)).status == status


def test_cancelling_beside_everything_else_ends_somewhere(alice):
    job = make_job(alice, Status.QUEUED)
    at_once([lambda: cancel_job(job), lambda: start_job_or_refusal(job), lambda: cancel_job(job)])
    job.refresh_from_db()
    assert job.status == Status.CANCELLED


def start_job_or_refusal(job: FineTuningJob) -> None:
    with suppress(InvalidError):
        start_job(job)


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_resumed_job_waits_in_the_queue_again(alice, status):
    job = make_job(alice, status, preflight={"errors": []}, error_code="x", error_message="y", attempt=3, is_held=True)
    job = resume_job(job)
    assert (job.status, job.error_code, job.attempt, job.is_held) == (Status.QUEUED, "", 0, False)


def test_resumed_job_is_checked_again_when_its_check_had_failed(alice):
    job = make_job(alice, Status.FAILED, preflight={"errors": [{"code": "x", "message": "y"}]})
    assert resume_job(job).status == Status.VALIDATING_FILES


def test_succeeded_job_is_not_resumed(alice):
    with pytest.raises(InvalidError, match="has succeeded"):
        resume_job(make_job(alice, Status.SUCCEEDED))


def test_resuming_twice_makes_no_difference(alice):
    job = make_job(alice, Status.CANCELLED, preflight={})
    at_once([lambda: resume_job(job)] * 4)
    assert [event.code for event in job.events.all()] == ["resume"]


def test_held_job_is_let_go(alice):
    assert start_job(make_job(alice, Status.QUEUED, is_held=True)).is_held is False


def test_ended_job_is_not_started(alice):
    with pytest.raises(InvalidError, match="has ended"):
        start_job(make_job(alice, Status.CANCELLED, is_held=True))


def test_retry_takes_what_the_failure_suggests_and_is_one_job(admin_user, base, conversations):
    failed = new_job(admin_user, conversations, hyperparameters=QUICK)
    suggestion = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    FineTuningJob.objects.update(status=Status.FAILED, error_details={"suggestion": suggestion})
    failed.refresh_from_db()
    first, second = retry_job(failed, user=admin_user), retry_job(failed, user=admin_user)
    assert first.pk == second.pk
    assert (first.retry_of, first.hyperparameters) == (failed, {**QUICK, **suggestion})
    cancel_job(first)
    assert retry_job(failed, user=admin_user).pk != first.pk


OUT_OF_MEMORY = {"error_code": "out_of_memory", "error_message": "Too much."}


def test_resumed_evaluation_that_took_too_much_memory_has_smaller_batches(alice):
    suggestion = {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 4}
    fields = {"preflight": PREFLIGHT, "hyperparameters": {"max_steps": 3}, "error_details": {"suggestion": suggestion}}
    job = make_job(alice, Status.FAILED, **fields, **OUT_OF_MEMORY)
    make_result(job, is_evaluated=False)
    job = resume_job(job)
    assert (job.status, job.hyperparameters) == (Status.QUEUED, {"max_steps": 3, "per_device_eval_batch_size": 4})
    values = resolved(job)  # of which the next suggestion is made
    assert values.for_less_memory(is_evaluation=True) == {"per_device_eval_batch_size": 2}
    assert values.per_device_train_batch_size == 4


def test_resumed_training_keeps_its_settings(alice):
    """Its checkpoint goes on with those it was begun with."""
    details = {"suggestion": {"per_device_eval_batch_size": 4}}
    job = make_job(alice, Status.FAILED, preflight=PREFLIGHT, error_details=details, **OUT_OF_MEMORY)
    assert resume_job(job).hyperparameters == {}


def test_running_job_is_not_tried_again(alice):
    with pytest.raises(InvalidError, match="has not ended"):
        retry_job(make_job(alice, Status.RUNNING), user=None)


def test_priority_of_an_ended_job_stays(alice):
    with pytest.raises(InvalidError):
        set_priority(make_job(alice, Status.SUCCEEDED), 3)


def test_evaluation_of_a_version_is_its_jobs_affair(alice):
    from finetuning.versions.evaluations import evaluate_version

    job = make_job(alice, Status.CANCELLED, preflight={})
    version = make_result(job, is_evaluated=False)
    assert evaluate_version(version).status == Status.QUEUED
    version.evaluated_at = timezone.now()
    with pytest.raises(InvalidError, match="already"):
        evaluate_version(version)
