"""Who may use which model, and what an address such as slug@3 stands for."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser, Group
from django.utils import timezone

from models_hub import breaker, services
from models_hub.base import ModelNotReadyError, ProviderUnavailableError, UnknownModelError
from models_hub.models import PRODUCTION, RegisteredModel
from models_hub.selectors import get_model, list_models, resolve_target

pytestmark = pytest.mark.django_db


@pytest.fixture
def connection(db):
    return services.create_connection("Mine", kind="openai_chat", base_url="http://mine.example/v1/", api_key="sk-x")


@pytest.fixture
def make_model(connection):
    def make(slug: str = "mine", *, versions: int = 1, **fields):
        model = RegisteredModel.objects.create(slug=slug, name=slug.title(), connection=connection, **fields)
        for _ in range(versions):
            version = services.add_version(model)
        if versions:
            services.move_alias(model, PRODUCTION, version, actor=None, reason="First.")
        return model

    return make


def test_a_target_holds_all_a_client_needs(make_model, connection, alice):
    connection.learned_parameters = {"mine@1": {"refused": ["seed"]}}
    connection.save()
    make_model(context_window=4096, default_options={"temperature": 0.1})
    target = resolve_target("mine", user=alice)
    assert (target.slug, target.name, target.task, target.kind) == ("mine", "Mine", "chat", "openai_chat")
    assert (target.base_url, target.api_key) == ("http://mine.example/v1", "sk-x")
    assert (target.provider_model, target.version_number, target.context_window) == ("mine@1", 1, 4096)
    assert (target.default_options, target.learned_parameters) == ({"temperature": 0.1}, {"refused": ["seed"]})


def test_a_target_is_found_in_few_queries(make_model, alice, django_assert_max_num_queries):
    make_model()
    with django_assert_max_num_queries(2):
        resolve_target("mine", user=alice)


def test_versions_and_aliases_are_addressed_by_at(make_model, alice):
    model = make_model(versions=3)
    services.move_alias(model, "candidate", model.versions.get(number=2), actor=None, reason="Try.")
    numbers = [
        resolve_target(f"mine{end}", user=alice).version_number for end in ("", "@production", "@1", "@candidate")
    ]
    assert numbers == [3, 3, 1, 2]


def test_a_slug_may_hold_an_at(make_model, alice):
    make_model("vendor/model@001")
    assert resolve_target("vendor/model@001", user=alice).slug == "vendor/model@001"
    assert resolve_target("vendor/model@001@1", user=alice).version_number == 1


@pytest.mark.parametrize(
    "slug", ["", "@", "none", "mine@", "mine@9", "mine@none", "mine@²", "mine@99999999999999999999"]
)
def test_what_is_not_there_is_unknown(make_model, alice, slug):
    make_model()
    with pytest.raises(UnknownModelError):
        resolve_target(slug, user=alice)


def test_disabled_models_and_connections_are_unknown(make_model, connection, alice):
    model = make_model()
    RegisteredModel.objects.update(is_enabled=False)
    with pytest.raises(UnknownModelError):
        resolve_target("mine", user=alice)
    RegisteredModel.objects.update(is_enabled=True)
    services.update_connection(connection, is_enabled=False)
    with pytest.raises(UnknownModelError):
        resolve_target(model.slug, user=alice)
    assert list_models(user=alice) == []


def test_groups_decide_who_may_use_a_model(make_model, alice, bob, charlie, admin_user):
    team, others = Group.objects.create(name="team"), Group.objects.create(name="others")
    for person in (alice, bob):
        person.groups.add(team)
    charlie.groups.add(others)
    make_model("open")
    make_model("closed").groups.add(team)
    for person in (alice, bob, admin_user, None):
        assert resolve_target("closed", user=person).slug == "closed"
        assert {card.slug for card in list_models(user=person)} == {"open", "closed"}
    for person in (charlie, AnonymousUser()):
        with pytest.raises(UnknownModelError):
            resolve_target("closed@1", user=person)
        assert {card.slug for card in list_models(user=person)} == {"open"}
        with pytest.raises(UnknownModelError):
            get_model("closed", user=person)


def test_several_groups_list_a_model_once(make_model, alice):
    groups = [Group.objects.create(name=name) for name in "ab"]
    alice.groups.add(*groups)
    make_model().groups.add(*groups)
    assert len(list_models(user=alice)) == 1


def test_not_ready_is_told_apart_from_unknown(make_model, alice):
    empty = make_model(versions=0)
    with pytest.raises(ModelNotReadyError):
        resolve_target("mine", user=alice)
    version = services.add_version(empty, is_ready=False, not_ready_reason="Its head is missing.")
    services.move_alias(empty, PRODUCTION, version, actor=None, reason="First.", may_wait=True)
    with pytest.raises(ModelNotReadyError, match="head"):
        resolve_target("mine", user=alice)
    [card] = list_models(user=alice)
    assert (card.is_available, card.reason) == (False, "Its head is missing.")


def test_a_retired_version_is_not_ready(make_model, alice):
    model = make_model(versions=2)
    model.versions.filter(number=1).update(retired_at=timezone.now())
    with pytest.raises(ModelNotReadyError):
        resolve_target("mine@1", user=alice)
    assert resolve_target("mine", user=alice).version_number == 2


def test_a_models_own_fallback_wins_over_the_setting(make_model, alice, settings):
    other = make_model("other")
    settings.DIALOOP = replace(settings.DIALOOP, fallback_model="general")
    make_model("mine", fallback=other)
    make_model("general")
    slugs = {slug: resolve_target(slug, user=alice).fallback_slug for slug in ("mine", "other", "general")}
    assert slugs == {"mine": "other", "other": "general", "general": ""}


def test_cards_tell_what_is_down(make_model, connection, alice):
    make_model("works")
    make_model("faulty")
    for _ in range(breaker.FAILURES_TO_OPEN):
        breaker.record_failure("faulty")
    assert {card.slug: card.is_available for card in list_models(user=alice)} == {"works": True, "faulty": False}
    services.record_check(connection, ProviderUnavailableError("Nobody there."))
    assert {card.reason for card in list_models(user=alice) if card.slug == "works"} == {"Nobody there."}


def test_an_old_failed_check_says_nothing_any_more(make_model, connection, alice):
    make_model()
    services.record_check(connection, ProviderUnavailableError("Nobody there."))
    services.update_connection(connection, last_checked_at=timezone.now() - timedelta(hours=1))
    assert list_models(user=alice)[0].is_available


def test_cards_cost_a_bounded_number_of_queries(make_model, alice, django_assert_max_num_queries):
    for number in range(10):
        make_model(f"model-{number}")
    with django_assert_max_num_queries(2):
        assert len(list_models(user=alice)) == 10
