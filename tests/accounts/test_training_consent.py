"""Nobody has agreed to training until he says so, and nobody says it for another."""

from __future__ import annotations

import pytest

from accounts.services import set_training_consent

JSON = "application/json"


@pytest.fixture
def mine(client, alice):
    client.force_login(alice)
    return client


def test_nobody_has_agreed_until_he_says_so(mine):
    assert mine.get("/api/me").json()["training_consent"] is False


def test_consent_keeps_the_moment_it_was_given(alice):
    assert set_training_consent(alice, agrees=True) is True
    given = alice.training_consent_at
    assert given is not None
    assert set_training_consent(alice, agrees=True) is False
    assert alice.training_consent_at == given
    assert set_training_consent(alice, agrees=False) is True
    assert alice.training_consent_at is None
    assert set_training_consent(alice, agrees=False) is False


def test_api_gives_and_withdraws(mine, alice):
    answer = mine.patch("/api/me", {"training_consent": True}, content_type=JSON)
    assert answer.json()["training_consent"] is True
    answer = mine.patch("/api/me", {"name": "Alice"}, content_type=JSON)
    assert answer.json()["training_consent"] is True
    answer = mine.patch("/api/me", {"training_consent": False, "theme": "dark"}, content_type=JSON)
    assert (answer.json()["training_consent"], answer.json()["theme"]) == (False, "dark")


@pytest.mark.parametrize("body", [{"training_consent": "perhaps"}, {"training_consent": True, "theme": "pink"}])
def test_refused_change_changes_no_consent_either(mine, alice, body):
    assert mine.patch("/api/me", body, content_type=JSON).status_code == 400
    alice.refresh_from_db()
    assert alice.training_consent_at is None


def test_page_explains_and_switches(mine, alice):
    text = mine.get("/settings/").content.decode()
    assert "Allow training" in text and "/settings/contributions/" in text
    answer = mine.post("/settings/training/", {"agrees": "yes"}, follow=True)
    assert "Withdraw" in answer.content.decode()
    alice.refresh_from_db()
    assert alice.training_consent_at is not None
    mine.post("/settings/training/", {"agrees": "no"})
    alice.refresh_from_db()
    assert alice.training_consent_at is None


@pytest.mark.parametrize("form", [{}, {"agrees": "on"}, {"agrees": "YES"}])
def test_only_a_plain_yes_is_one(mine, alice, form):
    mine.post("/settings/training/", form)
    alice.refresh_from_db()
    assert alice.training_consent_at is None


def test_who_is_not_signed_in_has_no_part_to_see(client):
    for path in ("/settings/contributions/", "/settings/training/"):
        assert client.post(path).status_code in (302, 405)
    assert "/accounts/login/" in client.get("/settings/contributions/")["Location"]
