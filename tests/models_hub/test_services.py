"""Writes of the models hub: connections, versions, aliases with their history."""

from __future__ import annotations

from dataclasses import replace

import pytest
from django.utils import timezone

from models_hub import learned, provider_keys, services
from models_hub.base import ProviderAuthenticationError, ProviderUnavailableError
from models_hub.models import (
    CANDIDATE,
    PRODUCTION,
    Alias,
    AliasEvent,
    Connection,
    ModelVersion,
    RegisteredModel,
)
from models_hub.services import AliasMoveError
from models_hub.tasks import check_connections
from tests.models_hub.support import make_target

pytestmark = pytest.mark.django_db


@pytest.fixture
def connection(db):
    return services.create_connection("Mine", kind="openai_chat", api_key="sk-x")


@pytest.fixture
def model(connection):
    return RegisteredModel.objects.create(slug="mine", name="Mine", connection=connection)


def test_moving_an_alias_keeps_who_from_where_to_where_and_why(model, alice):
    first, second = services.add_version(model), services.add_version(model)
    services.move_alias(model, PRODUCTION, first, actor=None, reason="First.")
    services.move_alias(model, PRODUCTION, second, actor=alice, reason=" Better. ")
    event = AliasEvent.objects.first()
    assert (event.from_version, event.to_version, event.actor, event.reason) == (first, second, alice, "Better.")
    assert model.aliases.get().version == second


def test_rolling_back_is_one_more_move(model):
    first, second = services.add_version(model), services.add_version(model)
    for version in (first, second, first):
        services.move_alias(model, PRODUCTION, version, actor=None, reason="Move.")
    assert model.aliases.get().version == first
    assert AliasEvent.objects.count() == 3


@pytest.mark.parametrize(
    ("alias", "reason"),
    [(PRODUCTION, ""), (PRODUCTION, "  "), (PRODUCTION, "x" * 501), ("", "y"), ("7", "y"), ("a b", "y"), ("a@b", "y")],
)
def test_a_wrong_move_changes_nothing(model, alias, reason):
    version = services.add_version(model)
    with pytest.raises(AliasMoveError):
        services.move_alias(model, alias, version, actor=None, reason=reason)
    assert not Alias.objects.exists()
    assert not AliasEvent.objects.exists()


def test_an_alias_cannot_point_at_another_models_version(model, connection):
    other = RegisteredModel.objects.create(slug="other", name="Other", connection=connection)
    with pytest.raises(AliasMoveError):
        services.move_alias(model, PRODUCTION, services.add_version(other), actor=None, reason="Mix.")


def test_a_move_to_where_it_is_is_refused(model):
    version = services.add_version(model)
    services.move_alias(model, PRODUCTION, version, actor=None, reason="First.")
    with pytest.raises(AliasMoveError):
        services.move_alias(model, PRODUCTION, version, actor=None, reason="Again.")


def test_versions_are_numbered_and_named_for_the_engine(model):
    names = [services.add_version(model).provider_model for _ in range(3)]
    assert names == ["mine@1", "mine@2", "mine@3"]


def test_a_key_is_kept_unless_one_is_given(connection):
    services.update_connection(connection, name="Renamed")
    assert provider_keys.get_api_key(Connection.objects.get()) == "sk-x"
    services.update_connection(connection, api_key="sk-y")
    assert provider_keys.get_api_key(Connection.objects.get()) == "sk-y"
    services.update_connection(connection, api_key="")
    assert provider_keys.get_api_key(Connection.objects.get()) == ""


def test_testing_a_connection_stores_what_came_of_it(connection, upstream):
    services.update_connection(connection, base_url=upstream.base_url)
    assert services.test_connection(connection) is None
    upstream.script = "fail=401"
    assert isinstance(services.test_connection(connection), ProviderAuthenticationError)
    stored = Connection.objects.get()
    assert (stored.last_error_code, bool(stored.last_error_message)) == ("provider_auth", True)
    upstream.script = ""
    services.test_connection(connection)
    assert Connection.objects.get().last_error_code == ""


def test_every_enabled_connection_is_checked_in_the_background(connection, upstream):
    services.update_connection(connection, base_url=upstream.base_url)
    services.create_connection("Down", kind="openai_chat", base_url="http://127.0.0.1:9/v1")
    off = services.create_connection("Off", kind="openai_chat", base_url="http://127.0.0.1:9/v1")
    services.update_connection(off, is_enabled=False)
    check_connections()
    found = dict(Connection.objects.exclude(last_checked_at=None).values_list("name", "last_error_code"))
    assert found == {"Mine": "", "Down": "provider_unavailable"}


def test_a_connection_to_nobody_is_down(connection):
    services.update_connection(connection, base_url="http://127.0.0.1:9/v1")
    assert isinstance(services.test_connection(connection), ProviderUnavailableError)


def test_lessons_of_two_models_do_not_overwrite_each_other(connection):
    for name in ("a", "b"):
        target = make_target(model=name, connection_id=connection.pk)
        learned.remember_parameters(target, {"refused": [name]})
    kept = Connection.objects.get().learned_parameters
    assert kept == {"a": {"refused": ["a"]}, "b": {"refused": ["b"]}}


def test_a_lesson_about_a_deleted_connection_is_dropped():
    learned.remember_parameters(make_target(connection_id=10**6), {"refused": []})
    assert not Connection.objects.exists()


def test_the_cache_folder_is_made(settings, tmp_path):
    settings.DIALOOP = replace(settings.DIALOOP, model_cache_dir=tmp_path / "a" / "b")
    assert services.create_model_cache_dir().is_dir()
    assert services.create_model_cache_dir() == tmp_path / "a" / "b"


def test_an_engine_that_answers_is_shown_as_up_at_once(settings):
    engine = Connection.objects.create(name="Engine", kind="engine", base_url=settings.DIALOOP.engine_url)
    other = Connection.objects.create(name="Other", kind="engine", base_url="http://127.0.0.1:10")
    for connection in (engine, other):
        services.record_check(connection, ProviderUnavailableError("It cannot be reached."))
    services.say_engine_is_up()
    codes = dict(Connection.objects.values_list("name", "last_error_code"))
    assert codes == {"Engine": "", "Other": "provider_unavailable"}


def test_what_was_not_evaluated_is_not_promoted(model):
    services.move_alias(model, PRODUCTION, services.add_version(model), actor=None, reason="First.")
    trained = services.add_version(model)
    ModelVersion.objects.filter(pk=trained.pk).update(needs_evaluation=True)
    with pytest.raises(AliasMoveError, match="not been evaluated"):
        services.move_alias(model, PRODUCTION, trained, actor=None, reason="It feels better.")
    assert model.aliases.get().version.number == 1
    ModelVersion.objects.filter(pk=trained.pk).update(evaluated_at=timezone.now())
    services.move_alias(model, PRODUCTION, trained, actor=None, reason="It is better.")
    assert model.aliases.get().version == trained


def test_a_candidate_need_not_be_evaluated_yet(model):
    trained = services.add_version(model)
    ModelVersion.objects.filter(pk=trained.pk).update(needs_evaluation=True)
    services.move_alias(model, CANDIDATE, trained, actor=None, reason="Trained.")
    assert model.aliases.get().version == trained


def test_what_cannot_answer_is_not_promoted(model):
    waiting = services.add_version(model, is_ready=False, not_ready_reason="It has no head.")
    with pytest.raises(AliasMoveError, match="It has no head"):
        services.move_alias(model, PRODUCTION, waiting, actor=None, reason="Now.")
    assert not AliasEvent.objects.exists()


def test_what_was_retired_is_not_promoted(model):
    version = services.add_version(model)
    ModelVersion.objects.filter(pk=version.pk).update(retired_at=timezone.now())
    with pytest.raises(AliasMoveError, match="retired"):
        services.move_alias(model, PRODUCTION, version, actor=None, reason="Again.")


def test_a_deleted_version_cannot_be_promoted(model):
    version = services.add_version(model)
    ModelVersion.objects.all().delete()
    with pytest.raises(AliasMoveError, match="no longer there"):
        services.move_alias(model, PRODUCTION, version, actor=None, reason="Late.")


def test_a_deleted_versions_number_is_not_given_again(model):
    services.add_version(model)
    services.add_version(model)
    ModelVersion.objects.all().delete()
    assert services.add_version(model).number == 3


def test_an_alias_taken_away_stays_in_the_history(model, alice):
    version = services.add_version(model)
    services.move_alias(model, CANDIDATE, version, actor=None, reason="Trained.")
    services.remove_alias(model.aliases.get(), actor=alice, reason="Retired.")
    event = AliasEvent.objects.first()
    assert not Alias.objects.exists()
    assert (event.from_number, event.to_number, event.actor, event.reason) == (1, None, alice, "Retired.")
