"""Query parameters of `/api`: what an address documents it takes, and nothing else."""

from __future__ import annotations

import json

import pytest

from config.api import api


@pytest.fixture
def program(client, admin_user):
    client.force_login(admin_user)
    return client


@pytest.mark.parametrize(
    ("path", "name"),
    [("conversations", "limt"), ("models", "q"), ("me", "verbose"), ("jobs", "Status"), ("datasets", "offset")],
)
def test_an_unknown_parameter_is_refused_by_name(program, path, name):
    response = program.get(f"/api/{path}", {name: "1"})
    assert response.status_code == 400
    answer = response.json()
    assert (answer["code"], list(answer["fields"])) == ("invalid", [name])
    assert name in answer["message"]


def test_a_change_with_an_unknown_parameter_changes_nothing(program, admin_user):
    body = json.dumps({"name": "Mine"})
    assert program.post("/api/me/keys?force=1", body, content_type="application/json").status_code == 400
    assert not admin_user.api_keys.exists()
    assert program.post("/api/me/keys", body, content_type="application/json").status_code == 201


def test_whoever_may_not_come_in_is_told_just_that(client, db):
    assert client.get("/api/models?q=1").status_code == 401


def documented() -> list[tuple[str, str]]:
    return [
        (path, parameter["name"])
        for path, operations in api.get_openapi_schema()["paths"].items()
        for parameter in operations.get("get", {}).get("parameters", ())
        if parameter["in"] == "query" and "{" not in path
    ]


def test_what_is_documented_is_known(program):
    """Whatever else is wrong with the value."""
    assert len(documented()) > 8
    for path, name in documented():
        answer = program.get(path, {name: "1"}).content.decode()
        assert "does not know such a parameter" not in answer, (path, name)
