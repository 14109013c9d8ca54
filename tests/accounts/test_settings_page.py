import re

import pytest
from allauth.usersessions.models import UserSession
from django.test import Client

from accounts import services
from accounts.devices import describe_device
from accounts.models import ApiKey

PASSWORD = "correct horse battery staple"
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
SAFARI = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Mobile Safari/604.1"


@pytest.fixture
def browser(alice):
    return signed_in("alice", FIREFOX)


def signed_in(name, user_agent):
    client = Client(headers={"user-agent": user_agent})
    client.post("/accounts/login/", {"login": name, "password": PASSWORD})
    return client


def test_page_shows_the_person_and_carries_nothing_inline(alice, browser):
    response = browser.get("/settings/")
    text = response.content.decode()
    assert "alice@example.org" in text and "Firefox on Windows" in text
    assert not re.search(r"\sstyle=|\son[a-z]+=|<style|<script(?![^>]*\bsrc=)", text)


def test_saved_settings_are_used_by_the_next_page(alice, browser):
    changes = {"name": "Alice  Liddell", "theme": "dark", "default_model": ""}
    response = browser.post("/settings/profile/", changes, follow=True)
    assert 'data-theme="dark"' in response.content.decode()
    alice.refresh_from_db()
    assert alice.name == "Alice Liddell"


@pytest.mark.parametrize("wrong", [{"theme": "pink"}, {"name": "x" * 151}, {"default_model": "no-such-model"}])
def test_wrong_setting_is_refused_with_a_sentence_and_changes_nothing(alice, browser, wrong):
    response = browser.post("/settings/profile/", {"name": "New", "theme": "dark", "default_model": ""} | wrong)
    assert response.status_code == 400
    assert "errorlist" in response.content.decode()
    alice.refresh_from_db()
    assert (alice.name, alice.theme) == ("alice", "system")


def test_withdrawn_default_model_does_not_stop_other_changes(alice, browser):
    alice.default_model = "gone"
    alice.save()
    browser.post("/settings/profile/", {"name": "New", "theme": "dark", "default_model": "gone"})
    alice.refresh_from_db()
    assert (alice.theme, alice.default_model) == ("dark", "gone")


def test_new_key_is_shown_once(alice, browser):
    response = browser.post("/settings/keys/", {"key-name": "notebook"})
    plain = re.search(r'id="new-key">(dl-[^<]+)<', response.content.decode()).group(1)
    assert "no-store" in response["Cache-Control"]
    assert services.authenticate_key(plain).user == alice
    assert plain not in browser.get("/settings/").content.decode()


def test_revoked_key_stops_working(alice, browser, ended):
    key, plain = services.create_key(alice, name="notebook")
    browser.post(f"/settings/keys/{key.pk}/revoke/")
    assert services.authenticate_key(plain) is None


def test_stranger_cannot_revoke_a_key(alice, charlie, browser):
    key, plain = services.create_key(charlie, name="his")
    assert browser.post(f"/settings/keys/{key.pk}/revoke/").status_code == 404
    assert services.authenticate_key(plain) is not None
    assert "his" not in re.findall(r'scope="row">([^<]+)', browser.get("/settings/").content.decode())


def test_ending_another_sign_in_leaves_this_one(alice, browser, ended):
    other = signed_in("alice", CHROME)
    session = UserSession.objects.get(session_key=other.session.session_key)
    assert "Chrome on Linux" in browser.get("/settings/").content.decode()
    browser.post(f"/settings/sign-ins/{session.pk}/end/")
    assert other.get("/settings/").status_code == 302
    assert browser.get("/settings/").status_code == 200
    assert ended == [{"session_key_hash": services.hash_session_key(session.session_key)}]


def test_ending_all_others_leaves_only_this_one(alice, browser, ended):
    others = [signed_in("alice", CHROME), signed_in("alice", SAFARI)]
    browser.post("/settings/sign-ins/end-others/")
    assert [other.get("/settings/").status_code for other in others] == [302, 302]
    assert browser.get("/settings/").status_code == 200


def test_stranger_cannot_end_a_sign_in(alice, charlie, browser):
    strangers = signed_in("charlie", CHROME)
    session = UserSession.objects.get(session_key=strangers.session.session_key)
    assert browser.post(f"/settings/sign-ins/{session.pk}/end/").status_code == 404
    browser.post("/settings/sign-ins/end-others/")
    assert strangers.get("/settings/").status_code == 200


def test_session_made_elsewhere_is_listed_once_it_is_seen(alice, client):
    client.force_login(alice)
    assert "this one" in client.get("/settings/").content.decode()


def test_being_seen_is_not_written_for_every_page(alice, browser, django_assert_max_num_queries):
    browser.get("/accounts/2fa/")
    before = UserSession.objects.get().last_seen_at
    browser.get("/accounts/2fa/")
    assert UserSession.objects.get().last_seen_at == before


@pytest.mark.parametrize(
    "path",
    ["profile/", "keys/", "keys/1/revoke/", "sign-ins/1/end/", "sign-ins/end-others/"],
)
def test_change_needs_a_sign_in_a_post_and_the_csrf_token(alice, path):
    client = Client(enforce_csrf_checks=True)
    assert client.post(f"/settings/{path}").status_code == 403
    client.force_login(alice)
    assert client.post(f"/settings/{path}").status_code == 403
    assert client.get(f"/settings/{path}").status_code == 405
    assert Client().post(f"/settings/{path}")["Location"].startswith("/accounts/login/")
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize(
    ("user_agent", "words"),
    [
        (FIREFOX, "Firefox on Windows"),
        (CHROME, "Chrome on Linux"),
        (CHROME + " Edg/140.0", "Edge on Linux"),
        (SAFARI, "Safari on iPhone"),
        ("curl/8.0", "curl"),
        ("", "An unknown device"),
    ],
)
def test_device_is_named_in_words(user_agent, words):
    assert describe_device(user_agent) == words
