"""Strict everywhere; the admin alone may evaluate and style inline, and loads nothing from outside either."""

import pytest


def policy_of(response):
    parts = (part.strip().partition(" ") for part in response["Content-Security-Policy"].split(";"))
    return {name: set(value.split()) for name, _, value in parts}


@pytest.mark.parametrize(
    "path", ["/accounts/login/", "/settings/", "/api/docs", "/api/me", "/api/openapi.json", "/no-such-page/"]
)
def test_policy_is_strict_outside_the_admin(alice, client, path):
    client.force_login(alice)
    policy = policy_of(client.get(path))
    assert policy["default-src"] == {"'none'"}
    assert policy["script-src"] == {"'self'"}
    assert policy["style-src"] == {"'self'"}
    assert policy["frame-ancestors"] == policy["base-uri"] == {"'none'"}
    assert policy["form-action"] == {"'self'"}


def test_admin_may_evaluate_and_style_but_not_load_from_outside(admin_user, client):
    client.force_login(admin_user)
    policy = policy_of(client.get("/admin/"))
    assert policy["script-src"] == {"'self'", "'unsafe-eval'"}
    assert policy["style-src"] == {"'self'", "'unsafe-inline'"}
    assert policy["connect-src"] == policy["font-src"] == {"'self'"}
    assert policy["img-src"] == {"'self'", "data:"}
    assert policy["default-src"] == {"'none'"}


def test_path_that_only_looks_like_the_admin_stays_strict(alice, client):
    for path in ("/administration/", "/admin", "/accounts/admin/"):
        assert "unsafe" not in client.get(path)["Content-Security-Policy"], path
