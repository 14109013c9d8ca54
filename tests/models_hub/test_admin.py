"""The admin of the models hub: keys go in and never out, versions stay, aliases move with a reason."""

from __future__ import annotations

import pytest
from django.urls import reverse

from models_hub import provider_keys, services
from models_hub.environment_sync import sync_from_environment
from models_hub.models import PRODUCTION, Alias, AliasEvent, Connection, ModelVersion, RegisteredModel

TABLES = ["connection", "registeredmodel", "modelversion", "alias", "aliasevent"]


@pytest.fixture
def model(db):
    connection = services.create_connection("Mine", kind="openai_chat", api_key="sk-secret")
    model = RegisteredModel.objects.create(slug="mine", name="Mine", connection=connection)
    services.move_alias(model, PRODUCTION, services.add_version(model), actor=None, reason="First.")
    return model


@pytest.fixture
def admin(client, admin_user):
    client.force_login(admin_user)
    return client


def url(table: str, page: str = "changelist", *arguments) -> str:
    return reverse(f"admin:models_hub_{table}_{page}", args=arguments)


def shown_errors(response) -> str:
    return str(response.context["errors"]) if response.context else ""


@pytest.mark.parametrize("table", TABLES)
def test_every_list_and_row_opens(admin, model, table):
    assert admin.get(url(table)).status_code == 200
    row = {
        "connection": model.connection,
        "registeredmodel": model,
        "modelversion": model.versions.get(),
        "alias": model.aliases.get(),
        "aliasevent": AliasEvent.objects.get(),
    }[table]
    response = admin.get(url(table, "change", row.pk))
    assert response.status_code == 200
    assert "sk-secret" not in response.content.decode()


@pytest.mark.parametrize("table", TABLES)
def test_members_may_not_even_if_they_are_staff(client, model, alice, table):
    alice.is_staff = True
    alice.save()
    client.force_login(alice)
    assert client.get(url(table)).status_code == 403


def test_a_connection_is_added_with_its_key_encrypted(admin):
    fields = {"name": "New", "kind": "openai_chat", "address": "http://server:8000/v1/", "is_enabled": "on"}
    response = admin.post(url("connection", "add"), fields | {"api_key": "sk-new"})
    assert response.status_code == 302, shown_errors(response)
    connection = Connection.objects.get()
    assert provider_keys.get_api_key(connection) == "sk-new"
    assert connection.base_url == "http://server:8000/v1"
    assert "sk-new" not in admin.get(url("connection", "change", connection.pk)).content.decode()


def test_saving_without_a_key_keeps_the_one_there_is(admin, model):
    connection = model.connection
    fields = {"name": "Renamed", "kind": "openai_chat", "address": "", "is_enabled": "on", "api_key": ""}
    admin.post(url("connection", "change", connection.pk), fields)
    connection.refresh_from_db()
    assert (connection.name, provider_keys.get_api_key(connection)) == ("Renamed", "sk-secret")
    admin.post(url("connection", "change", connection.pk), fields | {"remove_api_key": "on"})
    connection.refresh_from_db()
    assert provider_keys.get_api_key(connection) == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", "file:///etc/passwd"),
        ("address", "http://"),
        ("address", "http://["),
        ("address", "http://a:b/"),
        ("api_key", "schlüssel"),
    ],
)
def test_a_wrong_address_or_key_is_refused(admin, db, field, value):
    fields = {"name": "New", "kind": "openai_chat", "address": "", "is_enabled": "on", field: value}
    assert admin.post(url("connection", "add"), fields).status_code == 200
    assert not Connection.objects.exists()


def test_a_connection_of_the_environment_is_read_only(admin, settings, tmp_path):
    from dataclasses import replace

    settings.DIALOOP = replace(settings.DIALOOP, model_cache_dir=tmp_path)
    sync_from_environment()
    engine = Connection.objects.get(kind="engine")
    response = admin.get(url("connection", "change", engine.pk))
    assert response.status_code == 200
    assert settings.DIALOOP.engine_api_key not in response.content.decode()
    assert admin.post(url("connection", "change", engine.pk), {"name": "Taken"}).status_code == 403
    assert admin.post(url("connection", "delete", engine.pk), {"post": "yes"}).status_code == 403
    engine.refresh_from_db()
    assert engine.name == "Engine"


@pytest.mark.django_db(transaction=True)
def test_the_test_button_tells_and_stores_what_it_found(admin, model, upstream):
    services.update_connection(model.connection, base_url=upstream.base_url)
    button = url("connection", "test", model.connection.pk)
    assert f'action="{button}"' in admin.get(url("connection", "change", model.connection.pk)).content.decode()
    assert "answers and takes the key" in admin.post(button, follow=True).content.decode()
    upstream.script = "fail=401"
    assert "does not accept the key" in admin.post(button, follow=True).content.decode()
    assert Connection.objects.get().last_error_code == "provider_auth"
    upstream.script = ""
    chosen = {"action": "test_selected", "_selected_action": [model.connection.pk]}
    assert (
        "answers and takes the key" in admin.post(url("connection", "changelist"), chosen, follow=True).content.decode()
    )
    assert Connection.objects.get().last_error_code == ""


def test_a_look_at_the_test_button_changes_nothing(admin, model):
    assert admin.get(url("connection", "test", model.connection.pk)).status_code == 405
    assert Connection.objects.get().last_checked_at is None


def test_only_an_admin_tests_a_connection(client, model, alice):
    alice.is_staff = True
    alice.save()
    client.force_login(alice)
    assert client.post(url("connection", "test", model.connection.pk)).status_code == 403
    assert Connection.objects.get().last_checked_at is None


def test_a_version_is_added_and_never_changed(admin, model):
    fields = {"model": model.pk, "provider_model": "mine-2", "source": "", "revision": "", "notes": ""}
    response = admin.post(url("modelversion", "add"), fields | {"context_window": "100"})
    assert response.status_code == 302, shown_errors(response)
    version = ModelVersion.objects.get(number=2)
    assert (version.provider_model, version.context_window) == ("mine-2", 100)
    assert admin.post(url("modelversion", "change", version.pk), fields).status_code == 403
    assert admin.post(url("modelversion", "delete", version.pk), {"post": "yes"}).status_code == 403
    assert ModelVersion.objects.count() == 2


def test_an_alias_moves_with_a_reason_that_is_kept(admin, admin_user, model):
    second = services.add_version(model)
    alias = model.aliases.get()
    page = url("alias", "change", alias.pk)
    assert admin.post(page, {"version": second.pk, "reason": ""}).status_code == 200
    assert AliasEvent.objects.count() == 1
    response = admin.post(page, {"version": second.pk, "reason": "Better."})
    assert response.status_code == 302, shown_errors(response)
    event = AliasEvent.objects.first()
    assert (event.actor, event.from_version.number, event.to_version.number) == (admin_user, 1, 2)
    assert Alias.objects.get().version == second


def test_a_new_alias_is_a_move_too(admin, model):
    fields = {"model": model.pk, "name": "candidate", "version": model.versions.get().pk, "reason": "Try."}
    response = admin.post(url("alias", "add"), fields)
    assert response.status_code == 302, shown_errors(response)
    assert AliasEvent.objects.first().alias == "candidate"
    assert Alias.objects.filter(name="candidate").count() == 1


def test_an_alias_cannot_point_at_another_models_version(admin, model):
    other = RegisteredModel.objects.create(slug="other", name="Other", connection=model.connection)
    fields = {"version": services.add_version(other).pk, "reason": "Mix."}
    assert admin.post(url("alias", "change", model.aliases.get().pk), fields).status_code == 200
    assert AliasEvent.objects.count() == 1


def test_history_is_read_only(admin, model):
    event = AliasEvent.objects.get()
    assert admin.post(url("aliasevent", "change", event.pk), {"reason": "Rewritten."}).status_code == 403
    assert admin.post(url("aliasevent", "delete", event.pk), {"post": "yes"}).status_code == 403
    assert admin.get(url("aliasevent", "add")).status_code == 403


@pytest.mark.parametrize(
    ("options", "status"), [('{"temperature": 0.2}', 302), ('{"temperature": 9}', 200), ('{"x": 1}', 200), ("[]", 200)]
)
def test_default_options_are_checked_as_a_persons_are(admin, model, options, status):
    fields = {"name": "Mine", "description": "", "connection": model.connection.pk, "is_enabled": "on"}
    inline = {"versions-TOTAL_FORMS": 0, "versions-INITIAL_FORMS": 0}
    response = admin.post(url("registeredmodel", "change", model.pk), fields | inline | {"default_options": options})
    assert response.status_code == status, shown_errors(response)
