"""The models page."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group

from models_hub import breaker, services
from models_hub.models import PRODUCTION, RegisteredModel


@pytest.fixture
def model(db):
    connection = services.create_connection("Home <server>", kind="openai_chat", api_key="sk-secret")
    model = RegisteredModel.objects.create(
        slug="mine", name="My <model>", connection=connection, context_window=128_000, description="Good & small."
    )
    services.move_alias(model, PRODUCTION, services.add_version(model), actor=None, reason="First.")
    return model


def page(client) -> str:
    response = client.get("/models/")
    assert response.status_code == 200
    return response.content.decode()


def test_one_has_to_sign_in(client, db):
    response = client.get("/models/")
    assert response.status_code == 302
    assert response.url.startswith("/accounts/login/")


def test_a_model_is_shown_with_what_one_needs_to_know(client, model, alice):
    client.force_login(alice)
    html = page(client)
    for text in ("Home &lt;server&gt;", "My &lt;model&gt;", "Good &amp; small.", "128,000 tokens", "Available", "Chat"):
        assert text in html
    assert "sk-secret" not in html


def test_a_model_that_is_down_says_why(client, model, alice):
    client.force_login(alice)
    for _ in range(breaker.FAILURES_TO_OPEN):
        breaker.record_failure("mine")
    html = page(client)
    assert "Not available" in html
    assert "given a rest" in html


def test_a_stranger_does_not_see_a_model_of_a_group(client, model, charlie):
    model.groups.add(Group.objects.create(name="team"))
    client.force_login(charlie)
    html = page(client)
    assert "mine" not in html
    assert "no model that you may use" in html


def test_only_an_admin_is_shown_the_way_to_the_connections(client, model, alice, admin_user):
    client.force_login(alice)
    assert "/admin/models_hub/connection/" not in page(client)
    client.force_login(admin_user)
    assert "/admin/models_hub/connection/" in page(client)


def test_nothing_on_the_page_breaks_the_content_policy(client, model, admin_user):
    client.force_login(admin_user)
    html = page(client)
    assert "style=" not in html
    assert "onclick" not in html
