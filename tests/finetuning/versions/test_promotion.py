"""What becomes of trained versions: promoted by the gate, rolled back step by step, retired, deleted when unused."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from chat.errors import BusyError, InvalidError
from chat.models import Conversation, Message
from finetuning import versions
from finetuning.models import Evaluation, FineTuningJob, Schedule
from models_hub import services
from models_hub.models import CANDIDATE, PRODUCTION, AliasEvent, ModelVersion
from tests.finetuning.job_rows import make_base
from tests.finetuning.version_support import add_trained, make_dataset_version, make_trained_model, write_folders

pytestmark = pytest.mark.django_db


@pytest.fixture
def model(settings, tmp_path):
    settings.DIALOOP = replace(settings.DIALOOP, model_cache_dir=tmp_path)
    return make_trained_model()


@pytest.fixture
def cache(settings, tmp_path):
    return tmp_path


def production(model) -> int:
    return model.aliases.get(name=PRODUCTION).version.number


def promote(*trained: ModelVersion) -> None:
    for version in trained:
        versions.promote(version, actor=None, reason="Better.")


def test_a_promotion_is_an_event_with_who_and_why(model, alice):
    event = versions.promote(add_trained(model), actor=alice, reason="It knows the harbour.")
    assert production(model) == 2
    assert (event.from_number, event.to_number, event.actor) == (1, 2, alice)
    assert event.reason == "It knows the harbour."


@pytest.mark.parametrize("reason", ["", "   "])
def test_a_promotion_needs_a_reason(model, reason):
    with pytest.raises(InvalidError, match="reason"):
        versions.promote(add_trained(model), actor=None, reason=reason)
    assert production(model) == 1


def test_a_promotion_needs_an_evaluation(model):
    with pytest.raises(InvalidError, match="not been evaluated"):
        versions.promote(add_trained(model, is_evaluated=False), actor=None, reason="It feels better.")
    assert production(model) == 1
    assert AliasEvent.objects.count() == 1


def test_rolling_back_goes_to_the_version_before_and_says_why(model, alice):
    promote(add_trained(model))
    event = versions.roll_back(model, actor=alice, reason="It rambles.")
    assert production(model) == 1
    assert (event.from_number, event.to_number, event.actor, event.reason) == (2, 1, alice, "It rambles.")


def test_rolling_back_twice_goes_back_two_steps(model):
    promote(add_trained(model), add_trained(model))
    for expected in (2, 1):
        versions.roll_back(model, actor=None, reason="Worse.")
        assert production(model) == expected
    with pytest.raises(InvalidError, match="no earlier version"):
        versions.roll_back(model, actor=None, reason="Worse.")


def test_after_a_rollback_a_promotion_can_be_rolled_back_too(model):
    second, third = add_trained(model), add_trained(model)
    promote(second)
    versions.roll_back(model, actor=None, reason="Worse.")
    promote(third)
    assert versions.find_previous(model).number == 1


def test_rolling_back_passes_over_what_is_retired(model):
    second, third = add_trained(model), add_trained(model)
    promote(second, third)
    versions.retire(second)
    versions.roll_back(model, actor=None, reason="Worse.")
    assert production(model) == 1


def test_two_who_roll_back_at_once_go_back_one_step(model):
    promote(add_trained(model), add_trained(model))
    versions.roll_back(model, actor=None, reason="Worse.", current=3)
    with pytest.raises(BusyError, match="moved meanwhile"):
        versions.roll_back(model, actor=None, reason="Worse.", current=3)
    assert production(model) == 2


def test_an_alias_without_a_past_is_not_rolled_back(model):
    for alias in (PRODUCTION, CANDIDATE):
        with pytest.raises(InvalidError, match="no earlier version"):
            versions.roll_back(model, actor=None, reason="Worse.", alias=alias)
    assert production(model) == 1


def test_a_retired_version_cannot_be_promoted_and_is_no_candidate(model, alice):
    trained = add_trained(model)
    services.move_alias(model, CANDIDATE, trained, actor=None, reason="Trained.")
    versions.retire(trained, actor=alice)
    assert trained.retired_at is not None
    assert [alias.name for alias in model.aliases.all()] == [PRODUCTION]
    event = AliasEvent.objects.first()
    assert (event.alias, event.from_number, event.to_number, event.actor) == (CANDIDATE, 2, None, alice)
    with pytest.raises(InvalidError, match="retired"):
        versions.promote(trained, actor=None, reason="Again.")
    with pytest.raises(InvalidError, match="already"):
        versions.retire(trained)


def test_what_is_in_production_is_not_retired(model):
    trained = add_trained(model)
    promote(trained)
    with pytest.raises(BusyError, match="Move it to another version"):
        versions.retire(trained)
    trained.refresh_from_db()
    assert trained.retired_at is None


def test_deleting_takes_the_row_and_then_its_folders(model, cache):
    trained = add_trained(model)
    write_folders(trained, cache)
    other = cache / model.slug / "1"
    other.mkdir()
    versions.delete_version(trained)
    assert not ModelVersion.objects.filter(pk=trained.pk).exists()
    assert list((cache / model.slug).iterdir()) == [other]


def test_the_history_outlives_a_deleted_version(model):
    trained = add_trained(model)
    promote(trained)
    versions.roll_back(model, actor=None, reason="Worse.")
    versions.delete_version(trained)
    events = AliasEvent.objects.values_list("from_number", "to_number")
    assert list(events) == [(2, 1), (1, 2), (None, 1)]
    assert versions.find_previous(model) is None


def test_deleting_leaves_folders_that_set_up_made(model, cache):
    second = services.add_version(model, source=model.slug)
    folder = cache / model.slug
    folder.mkdir()
    versions.delete_version(second)
    assert folder.is_dir()


@pytest.mark.parametrize("source", ["../harbour-helper/2", "/etc"])
def test_deleting_never_leaves_the_model_cache(model, cache, source):
    outside = cache.parent / "harbour-helper" / "2"
    outside.mkdir(parents=True, exist_ok=True)
    version = services.add_version(model, source=source)
    versions.delete_version(version)
    assert outside.is_dir()


def use_as_alias(version: ModelVersion, alice) -> None:
    services.move_alias(version.model, "friends", version, actor=None, reason="For friends.")


def use_in_a_reply(version: ModelVersion, alice) -> None:
    conversation = Conversation.objects.create(owner=alice, model="any")
    Message.objects.create(conversation=conversation, role="assistant", version=version)


def use_in_a_job(version: ModelVersion, alice) -> None:
    FineTuningJob.objects.create(
        base=str(version),
        target="other",
        method="lora_sft",
        base_version=version,
        dataset_version=make_dataset_version("Other"),
        status=FineTuningJob.Status.RUNNING,
        owner_token=uuid.uuid4(),
    )


def use_as_base(version: ModelVersion, alice) -> None:
    add_trained(version.model, base=version)


def use_in_an_evaluation(version: ModelVersion, alice) -> None:
    Evaluation.objects.create(version=version)


def use_its_folder(version: ModelVersion, alice) -> None:
    """As an admin registers it a second time."""
    model = make_base("twin").model
    ModelVersion.objects.create(model=model, number=2, provider_model="twin@2", source=version.source)


def use_in_a_schedule(version: ModelVersion, alice) -> None:
    Schedule.objects.create(
        name="Weekly",
        base=str(version),
        target="other",
        method="lora_sft",
        cron="0 2 * * sun",
        dataset=make_dataset_version("Other").dataset,
    )


@pytest.mark.parametrize(
    ("use", "sentence"),
    [
        (use_as_alias, "friends points at it"),
        (use_in_a_reply, "wrote replies"),
        (use_in_a_job, "is training from it"),
        (use_as_base, "others were trained from it"),
        (use_in_an_evaluation, "is being evaluated"),
        (use_in_a_schedule, "schedule"),
        (use_its_folder, "loaded from the same folder"),
    ],
)
def test_what_is_in_use_is_not_deleted(model, alice, cache, use, sentence):
    trained = add_trained(model)
    write_folders(trained, cache)
    use(trained, alice)
    with pytest.raises(BusyError, match=sentence):
        versions.delete_version(trained)
    assert ModelVersion.objects.filter(pk=trained.pk).exists()
    assert (cache / trained.source).is_dir()


def test_evaluation_that_nobody_will_end_does_not_keep_a_version(model):
    """Its worker died while the job was being cancelled."""
    trained = add_trained(model)
    Evaluation.objects.create(version=trained, job=trained.lineage.job)
    versions.delete_version(trained)
    assert not ModelVersion.objects.filter(pk=trained.pk).exists()
