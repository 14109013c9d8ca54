"""`/api/models`: who sees which model, and who may move an alias."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group

from models_hub import services
from models_hub.models import PRODUCTION, AliasEvent, RegisteredModel

SLUG = "vendor/mine"


@pytest.fixture
def model(db):
    connection = services.create_connection("Mine", kind="openai_chat", api_key="sk-secret")
    model = RegisteredModel.objects.create(slug=SLUG, name="Mine", connection=connection)
    first = services.add_version(model)
    services.add_version(model)
    services.move_alias(model, PRODUCTION, first, actor=None, reason="First.")
    return model


@pytest.fixture
def hidden(model):
    model.groups.add(Group.objects.create(name="team"))
    return model


def put(client, version, reason="Better.", *, alias=PRODUCTION, **more):
    body = {"version": version, "reason": reason, **more}
    return client.put(f"/api/models/{SLUG}/aliases/{alias}", body, content_type="application/json")


def test_nobody_sees_models_without_signing_in(client, model):
    assert client.get("/api/models").status_code == 401
    assert client.get(f"/api/models/{SLUG}/versions").status_code == 401
    assert put(client, 2).status_code == 401


def test_a_member_lists_models_and_their_versions(client, model, alice):
    client.force_login(alice)
    [item] = client.get("/api/models").json()["items"]
    assert (item["slug"], item["version"], item["is_available"], item["connection"]) == (SLUG, 1, True, "Mine")
    versions = client.get(f"/api/models/{SLUG}/versions").json()["items"]
    assert [(row["number"], row["aliases"]) for row in versions] == [(2, []), (1, ["production"])]


def test_no_answer_holds_a_key(client, model, admin_user):
    client.force_login(admin_user)
    answers = client.get("/api/models").content + client.get(f"/api/models/{SLUG}/versions").content
    assert b"sk-secret" not in answers


def test_a_stranger_does_not_see_a_model_of_a_group(client, hidden, charlie):
    client.force_login(charlie)
    assert client.get("/api/models").json()["items"] == []
    for response in (client.get(f"/api/models/{SLUG}/versions"), put(client, 2)):
        assert (response.status_code, response.json()["code"]) == (404, "model_unavailable")


def test_a_member_may_not_move_an_alias(client, model, alice):
    client.force_login(alice)
    response = put(client, 2)
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert model.aliases.get().version.number == 1
    assert AliasEvent.objects.count() == 1


def test_an_admin_moves_an_alias_and_the_reason_is_kept(client, model, admin_user):
    client.force_login(admin_user)
    response = put(client, 2)
    assert response.json() == {
        "model": SLUG,
        "alias": PRODUCTION,
        "version": 2,
        "previous_version": 1,
        "reason": "Better.",
    }
    event = AliasEvent.objects.first()
    assert (event.actor, event.to_version.number, event.reason) == (admin_user, 2, "Better.")


@pytest.mark.parametrize(
    ("version", "values", "status"),
    [
        (9, {}, 404),
        (2, {"reason": ""}, 400),
        (2, {"reason": " "}, 400),
        (2, {"alias": "7"}, 400),
        (2, {"unknown": 1}, 400),
        ("two", {}, 400),
        (0, {}, 400),
        (10**30, {}, 400),
        (1, {}, 400),
    ],
)
def test_a_wrong_move_changes_nothing(client, model, admin_user, version, values, status):
    client.force_login(admin_user)
    assert put(client, version, **values).status_code == status
    assert model.aliases.get().version.number == 1
    assert AliasEvent.objects.count() == 1
