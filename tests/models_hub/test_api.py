"""`/api/models`: who sees which model, and who may move an alias."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group, Permission

from models_hub import services
from models_hub.models import PRODUCTION, AliasEvent, ModelVersion, RegisteredModel
from tests.conftest import make_user
from tests.finetuning.version_support import add_trained, make_trained_model, rate, write_folders

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


def call(client, method: str, path: str, **body):
    return client.generic(method, f"/api/models/{path}", json.dumps(body), content_type="application/json")


@pytest.fixture
def trained(db, settings, tmp_path):
    settings.DIALOOP = replace(settings.DIALOOP, model_cache_dir=tmp_path)
    version = add_trained(make_trained_model(), answers=[{"prompt": "Where?", "base": "?", "tuned": "Pier 4"}])
    write_folders(version, tmp_path)
    return version


@pytest.fixture
def curator(bob):
    bob.user_permissions.add(Permission.objects.get(codename="curate"))
    return bob


def test_a_curator_sees_where_a_version_comes_from_and_how_it_did(client, trained, curator, alice):
    rate(trained, alice, 1, -1)
    client.force_login(curator)
    newest, base = client.get("/api/models/harbour-helper/versions").json()["items"]
    assert newest["lineage"]["base"] == "harbour-helper@1"
    assert newest["lineage"]["dataset"] == "Harbour talk"
    assert newest["evaluation"]["after"]["eval_loss"] == 1.5
    assert "answers" not in newest["evaluation"]
    assert newest["ratings"] == {"good": 1, "bad": 1, "corrections": 0, "replies": 2}
    assert (base["lineage"], base["evaluation"]) == (None, None)
    one = client.get("/api/models/harbour-helper/versions/2").json()
    assert one["evaluation"]["answers"][0]["tuned"] == "Pier 4"
    assert client.get("/api/models/harbour-helper/versions/9").status_code == 404


def test_a_member_reads_the_card_and_nothing_else_of_a_training(client, trained, alice):
    client.force_login(alice)
    for version in (
        client.get("/api/models/harbour-helper/versions").json()["items"][0],
        client.get("/api/models/harbour-helper/versions/2").json(),
    ):
        assert "Knows the harbour" in version["card"]
        assert (version["lineage"], version["evaluation"], version["ratings"]) == (None, None, None)


def test_a_curator_promotes_and_rolls_back(client, trained, curator):
    client.force_login(curator)
    moved = call(client, "PUT", "harbour-helper/aliases/production", version=2, reason="Better.")
    assert (moved.status_code, moved.json()["version"]) == (200, 2)
    back = call(client, "POST", "harbour-helper/aliases/production/rollback", reason="Worse.", from_version=2)
    assert (back.json()["version"], back.json()["previous_version"]) == (1, 2)
    late = call(client, "POST", "harbour-helper/aliases/production/rollback", reason="Worse.", from_version=2)
    assert (late.status_code, late.json()["code"]) == (409, "busy")
    assert AliasEvent.objects.filter(actor=curator).count() == 2


def test_what_was_not_evaluated_is_not_promoted(client, trained, curator):
    ModelVersion.objects.filter(pk=trained.pk).update(evaluated_at=None)
    client.force_login(curator)
    refused = call(client, "PUT", "harbour-helper/aliases/production", version=2, reason="Better.")
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")
    assert "evaluated" in refused.json()["message"]
    assert trained.model.aliases.get().version.number == 1


def test_a_curator_retires_and_deletes_what_nothing_uses(client, trained, curator, tmp_path):
    client.force_login(curator)
    used = call(client, "DELETE", "harbour-helper/versions/1")
    assert (used.status_code, used.json()["code"]) == (409, "busy")
    assert call(client, "POST", "harbour-helper/versions/2/retire").json()["number"] == 2
    assert call(client, "DELETE", "harbour-helper/versions/2").status_code == 204
    assert not (tmp_path / "harbour-helper" / "2").exists()
    assert ModelVersion.objects.count() == 1


async def test_a_version_is_sent_as_a_zip_file(trained_async, async_client):
    response = await async_client.get("/api/models/harbour-helper/versions/2/export?part=adapter")
    assert response["Content-Disposition"] == 'attachment; filename="harbour-helper-2-adapter.zip"'
    content = b"".join([piece async for piece in response])
    assert "harbour-helper-2-adapter/README.md" in zipfile.ZipFile(io.BytesIO(content)).namelist()


@pytest.fixture
async def trained_async(transactional_db, settings, tmp_path, async_client):
    def make():
        settings.DIALOOP = replace(settings.DIALOOP, model_cache_dir=tmp_path)
        version = add_trained(make_trained_model())
        write_folders(version, tmp_path)
        admin = make_user("keeper", is_staff=True, is_superuser=True)
        async_client.force_login(admin, backend="django.contrib.auth.backends.ModelBackend")
        return version

    return await sync_to_async(make)()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "harbour-helper/aliases/production", {"version": 2, "reason": "Mine."}),
        ("POST", "harbour-helper/aliases/production/rollback", {"reason": "Mine."}),
        ("POST", "harbour-helper/versions/2/retire", {}),
        ("DELETE", "harbour-helper/versions/2", {}),
        ("GET", "harbour-helper/versions/2/export", {}),
    ],
)
def test_a_member_may_do_none_of_it(client, trained, alice, method, path, body):
    client.force_login(alice)
    response = call(client, method, path, **body)
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    trained.refresh_from_db()
    assert trained.retired_at is None
    assert trained.model.aliases.get().version.number == 1


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
