"""The root of the API: who gets in, and that every refusal has one shape. Its parts have tests of their own."""

import json
import re

import pytest
from django.test import Client

from accounts import services
from accounts.models import ApiKey
from chat.errors import BusyError, RateLimitedError
from config import api_errors
from models_hub.base import ProviderUnavailableError, UnknownModelError


@pytest.fixture
def key(alice):
    return services.create_key(alice, name="tests")[1]


@pytest.fixture
def program(key):
    return Client(headers={"authorization": f"Bearer {key}"})


def send(client, method, path, body=None, **more):
    raw = body if isinstance(body, bytes | str) else json.dumps(body)
    return client.generic(method, path, raw, content_type="application/json", **more)


def assert_refused(response, status, code):
    assert response.status_code == status
    assert response["Content-Type"].startswith("application/json")
    answer = response.json()
    assert set(answer) == {"code", "message", "fields"}
    assert answer["code"] == code
    assert answer["message"]
    return answer


def test_key_and_session_open_the_same_account(alice, program, client):
    client.force_login(alice)
    for one in (program, client):
        me = one.get("/api/me").json()
        assert (me["username"], me["email"], me["is_admin"]) == ("alice", "alice@example.org", False)


@pytest.mark.parametrize(
    "authorization", ["Bearer wrong", "Bearer ", "Bearer", "Basic YWxpY2U6cHc=", "dl-wrong", "Bearer \xff\xfe"]
)
def test_wrong_credentials_are_refused(alice, authorization):
    response = Client(headers={"authorization": authorization}).get("/api/me")
    assert_refused(response, 401, "unauthenticated")
    assert response["WWW-Authenticate"].startswith("Bearer")


def test_wrong_key_is_refused_even_beside_a_session(alice, client):
    client.force_login(alice)
    assert_refused(client.get("/api/me", headers={"authorization": "Bearer wrong"}), 401, "unauthenticated")


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
def test_stranger_without_anything_is_refused(db, method):
    path = {"POST": "/api/me/keys", "DELETE": "/api/me/keys/1"}.get(method, "/api/me")
    assert_refused(send(Client(enforce_csrf_checks=True), method, path, {}), 401, "unauthenticated")


def test_revoked_key_and_key_of_a_suspended_person_are_refused(alice, bob, program, ended_sockets):
    bobs = Client(headers={"authorization": f"Bearer {services.create_key(bob, name='k')[1]}"})
    services.revoke_keys(ApiKey.objects.filter(user=alice))
    services.deactivate_user(bob)
    for client in (program, bobs):
        assert_refused(client.get("/api/me"), 401, "unauthenticated")


@pytest.fixture
def ended_sockets(monkeypatch):
    monkeypatch.setattr(services, "end_sockets", lambda **which: None)


def test_session_needs_the_csrf_token_to_change_anything(alice):
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    kept, _ = services.create_key(alice, name="kept")
    assert_refused(send(client, "PATCH", "/api/me", {"name": "Mallory"}), 403, "forbidden")
    assert_refused(send(client, "POST", "/api/me/keys", {"name": "k"}), 403, "forbidden")
    assert_refused(client.delete(f"/api/me/keys/{kept.pk}"), 403, "forbidden")
    alice.refresh_from_db()
    assert alice.name == "alice" and ApiKey.objects.filter(revoked_at=None).count() == 1
    client.get("/settings/")
    token = client.cookies["csrftoken"].value
    response = send(client, "PATCH", "/api/me", {"name": "Alice L."}, headers={"x-csrftoken": token})
    assert response.json()["name"] == "Alice L."


def test_key_needs_no_csrf_token(key):
    client = Client(enforce_csrf_checks=True, headers={"authorization": f"Bearer {key}"})
    assert send(client, "PATCH", "/api/me", {"theme": "dark"}).json()["theme"] == "dark"


def test_keys_are_made_listed_and_revoked(alice, program, ended_sockets):
    made = send(program, "POST", "/api/me/keys", {"name": "second"})
    assert made.status_code == 201
    assert Client(headers={"authorization": f"Bearer {made.json()['key']}"}).get("/api/me").status_code == 200
    listed = program.get("/api/me/keys").json()
    assert [item["name"] for item in listed["items"]] == ["second", "tests"]
    assert "key" not in listed["items"][0]
    assert program.delete(f"/api/me/keys/{made.json()['id']}").status_code == 204
    assert [item["name"] for item in program.get("/api/me/keys").json()["items"]] == ["tests"]


def test_stranger_cannot_see_or_revoke_a_key(alice, charlie, program):
    foreign, plain = services.create_key(charlie, name="foreign")
    assert_refused(program.delete(f"/api/me/keys/{foreign.pk}"), 404, "not_found")
    assert "foreign" not in program.get("/api/me/keys").content.decode()
    assert services.authenticate_key(plain) is not None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "A", "is_admin": True}, "is_admin"),
        ({"is_superuser": True}, "is_superuser"),
        ({"email": "mallory@example.org"}, "email"),
        ({"theme": "pink"}, "theme"),
        ({"name": 5}, "name"),
        ({"name": "x" * 151}, "name"),
        ({"default_model": "no-such-model"}, "default_model"),
    ],
)
def test_wrong_or_unknown_field_is_named_and_nothing_changes(alice, program, body, field):
    answer = assert_refused(send(program, "PATCH", "/api/me", body), 400, "invalid")
    assert list(answer["fields"]) == [field]
    alice.refresh_from_db()
    assert (alice.name, alice.theme, alice.is_superuser, alice.email) == ("alice", "system", False, "alice@example.org")


@pytest.mark.parametrize(
    "raw",
    [
        rb'{"name": "a\u0000b"}',
        rb'{"name": "a\ud800b"}',
        rb'{"na\ud800me": "x"}',
        b'{"name": NaN}',
        b'{"name": ',
        b"[1, 2]",
        b'"text"',
        b"",
        b"\xff\xfe\x00",
        b"[" * 100_000,
    ],
)
def test_body_that_cannot_be_read_or_stored_is_refused(alice, program, raw):
    assert_refused(send(program, "PATCH", "/api/me", raw), 400, "invalid")
    alice.refresh_from_db()
    assert alice.name == "alice"


def test_body_over_the_limit_is_too_long(program, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    assert_refused(send(program, "PATCH", "/api/me", {"name": "x" * 2000}), 413, "too_long")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/", 404, "not_found"),
        ("GET", "/api/no-such-thing", 404, "not_found"),
        ("GET", "/api/me/keys/abc", 404, "not_found"),
        ("GET", "/api/me%00", 404, "not_found"),
        ("PUT", "/api/me", 405, "method_not_allowed"),
        ("GET", "/api/me/keys/1", 405, "method_not_allowed"),
        ("DELETE", "/api/me/keys/99999999999999999999999", 404, "not_found"),
    ],
)
def test_wrong_address_or_method_has_the_same_shape(program, method, path, status, code):
    response = send(program, method, path, {})
    assert_refused(response, status, code)
    assert ("Allow" in response) == (status == 405)


def test_foreign_host_is_refused_in_the_same_shape(db, client):
    assert_refused(client.get("/api/me", headers={"host": "evil.example"}), 400, "invalid")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BusyError("Wait."), 409, "busy"),
        (RateLimitedError("Wait.", retry_after=1.2), 429, "rate_limited"),
        (UnknownModelError("No such model."), 404, "model_unavailable"),
        (ProviderUnavailableError("Down."), 503, "provider_unavailable"),
        (RuntimeError("boom"), 500, "internal"),
    ],
)
def test_error_raised_inside_becomes_its_code_and_says_no_more(program, monkeypatch, error, status, code):
    def fail(**options):
        raise error

    monkeypatch.setattr("accounts.selectors.list_keys", fail)
    program.raise_request_exception = False
    response = program.get("/api/me/keys")
    answer = assert_refused(response, status, code)
    assert "boom" not in answer["message"]
    assert response.headers.get("Retry-After") == ("2" if status == 429 else None)


def test_every_model_hub_error_has_a_status(rf):
    from models_hub import base

    for kind in vars(base).values():
        if isinstance(kind, type) and issubclass(kind, base.ModelHubError):
            response = api_errors.on_model_hub_error(rf.get("/"), kind("Sentence."))
            assert 400 <= response.status_code <= 503
            assert json.loads(response.content)["code"] == kind.code


def test_reference_page_needs_no_script_and_no_other_host(db, client):
    text = client.get("/api/docs").content.decode()
    assert "/api/me/keys" in text and "Create an API key" in text
    assert not re.search(r"<script(?![^>]*\bsrc=\"/static/)|\sstyle=|\son[a-z]+=|(src|href)=\"(https?:)?//", text)


def test_reference_page_names_every_operation_of_the_document(db, client):
    document = client.get("/api/openapi.json").json()
    text = client.get("/api/docs").content.decode()
    operations = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(operations) >= 5
    assert all(f'id="{operation}"' in text for operation in operations)
    assert document["components"]["securitySchemes"]


def test_every_operation_needs_credentials(db):
    """Whatever router is added: no operation answers somebody without a key or a session."""
    stranger = Client()
    document = stranger.get("/api/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            response = send(stranger, method.upper(), with_some_id(path, operation), {})
            assert response.status_code == 401, (method, path)


def with_some_id(path, operation):
    for parameter in operation.get("parameters", []):
        kind = parameter["schema"].get("format") or parameter["schema"].get("type")
        value = {"uuid": "00000000-0000-4000-8000-000000000000", "integer": "1"}.get(kind, "x")
        path = path.replace(f"{{{parameter['name']}}}", value)
    return path
