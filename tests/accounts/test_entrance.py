"""The pages before somebody is in: sign-in, sign-up in its modes, approval, forgotten passwords, second factor."""

import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import (
    TOTP,
    format_hotp_value,
    generate_totp_secret,
    hotp_value,
    yield_hotp_counters_from_time,
)
from cryptography.fernet import Fernet
from django.core import mail

from accounts import second_factor, services
from accounts.models import User

BASE_DIR = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery staple"
NEW_PASSWORD = "a long and quiet evening"
NEWCOMER = {"username": "dora", "email": "dora@example.org", "password1": PASSWORD}


def sign_in(client, login, password=PASSWORD):
    return client.post("/accounts/login/", {"login": login, "password": password})


def is_in(client):
    return client.get("/settings/").status_code == 200


@pytest.mark.parametrize("path", ["/settings/", "/admin/"])
def test_stranger_is_sent_to_sign_in(db, client, path):
    response = client.get(path)
    assert response.status_code == 302
    assert "/accounts/login/" in client.get(path, follow=True).redirect_chain[-1][0]


def test_open_signup_lets_in_at_once(db, client, set_signup):
    set_signup("open")
    client.post("/accounts/signup/", NEWCOMER)
    assert is_in(client)
    assert User.objects.get().approved_at is not None


def test_signup_with_approval_waits_for_an_admin(db, client, set_signup):
    set_signup("approval")
    response = client.post("/accounts/signup/", NEWCOMER, follow=True)
    assert "you are on the list" in response.content.decode()
    assert not is_in(client)
    assert (
        "you are on the list"
        in client.post("/accounts/login/", {"login": "dora", "password": PASSWORD}, follow=True).content.decode()
    )
    services.approve_user(User.objects.get(username="dora"))
    sign_in(client, "dora")
    assert is_in(client)


def test_closed_signup_creates_nobody(db, client, set_signup):
    set_signup("closed")
    assert "Sign-up is closed" in client.get("/accounts/signup/").content.decode()
    assert "Create an account" not in client.get("/accounts/login/").content.decode()
    client.post("/accounts/signup/", NEWCOMER)
    assert not User.objects.exists()


def test_nobody_can_make_himself_an_admin_while_signing_up(db, client, set_signup):
    set_signup("open")
    client.post("/accounts/signup/", {**NEWCOMER, "is_superuser": "on", "is_staff": "on", "approved_at": "2030-01-01"})
    user = User.objects.get()
    assert not user.is_superuser and not user.is_staff


@pytest.mark.parametrize("taken", [{"username": "ALICE"}, {"email": "Alice@Example.org"}])
def test_taken_name_or_address_is_refused(alice, client, set_signup, taken):
    set_signup("open")
    assert client.post("/accounts/signup/", NEWCOMER | taken).status_code == 200
    assert User.objects.count() == 1


def test_waiting_person_with_a_wrong_password_learns_nothing(db, client, set_signup):
    set_signup("approval")
    client.post("/accounts/signup/", NEWCOMER)
    wrong = sign_in(client, "dora", "wrong password here")
    unknown = sign_in(client, "nobody", "wrong password here")
    assert wrong.status_code == unknown.status_code == 200
    assert str(wrong.context["form"].errors) == str(unknown.context["form"].errors)


def test_suspended_person_is_told_so_and_stays_out(alice, client, ended):
    services.deactivate_user(alice)
    response = client.post("/accounts/login/", {"login": "alice", "password": PASSWORD}, follow=True)
    assert "This account is suspended" in response.content.decode()
    assert not is_in(client)


def test_thirty_people_behind_one_address_sign_in_within_a_minute(db, client):
    for number in range(35):
        services.create_user(f"pupil{number}", email=f"pupil{number}@example.org", password=PASSWORD)
    for number in range(35):
        assert sign_in(client, f"pupil{number}").status_code == 302
        client.post("/accounts/logout/")


def test_guessing_one_persons_password_is_slowed_down(alice, client):
    for _ in range(10):
        sign_in(client, "alice", "wrong password here")
    assert sign_in(client, "alice").status_code == 200
    assert not is_in(client)


@pytest.mark.parametrize(
    ("public_url", "host", "proxies"),
    [
        ("", "127.0.0.1", 0),
        ("", "0.0.0.0", 0),  # noqa: S104
        ("http://box.example.org:8000", "0.0.0.0", 0),  # noqa: S104 - perhaps only its own name
        ("http://chat.example.org", "127.0.0.1", 1),
        ("https://chat.example.org", "0.0.0.0", 1),  # noqa: S104
    ],
)
def test_only_a_proxy_that_must_be_there_is_believed(monkeypatch, public_url, host, proxies):
    monkeypatch.setenv("PUBLIC_URL", public_url)
    monkeypatch.setenv("HOST", host)
    found = runpy.run_path(str(BASE_DIR / "config" / "settings.py"))
    assert found["ALLAUTH_TRUSTED_PROXY_COUNT"] == proxies


def knock(client, forwarded: str) -> int:
    wrong = {"login": "alice", "password": "wrong password here"}
    return client.post("/accounts/login/", wrong, headers={"X-Forwarded-For": forwarded}).status_code


def test_one_address_behind_the_proxy_does_not_lock_out_the_others(alice, client, settings):
    settings.ALLAUTH_TRUSTED_PROXY_COUNT = 1
    settings.ACCOUNT_RATE_LIMITS = {"login": "2/m/ip"}
    assert [knock(client, "203.0.113.7") for _ in range(3)] == [200, 200, 429]
    assert knock(client, "203.0.113.8") == 200
    # What the caller himself wrote in front of what the proxy appended counts for nothing.
    assert knock(client, "203.0.113.9, 203.0.113.7") == 429


def test_without_a_proxy_nobody_forges_his_address(alice, client, settings):
    settings.ACCOUNT_RATE_LIMITS = {"login": "2/m/ip"}
    assert [knock(client, f"203.0.113.{number}") for number in range(3)] == [200, 200, 429]


def test_sign_in_does_not_send_anybody_to_a_foreign_site(alice, client):
    response = client.post("/accounts/login/?next=https://evil.example/", {"login": "alice", "password": PASSWORD})
    assert response["Location"] == "/"


def test_signing_out_ends_the_session_and_its_sockets(alice, client, ended):
    sign_in(client, "alice")
    session_key = client.session.session_key
    client.post("/accounts/logout/")
    assert not is_in(client)
    assert {"session_key_hash": services.hash_session_key(session_key)} in ended


def test_forgotten_password_is_set_through_the_mail_once(alice, client, ended):
    client.post("/accounts/password/reset/", {"email": "alice@example.org"})
    link = re.search(r"https?://testserver(/\S+)", mail.outbox[0].body).group(1)
    form = client.get(link, follow=True).redirect_chain[-1][0]
    client.post(form, {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD})
    assert {"user_id": alice.pk} in ended
    sign_in(client, "alice", NEW_PASSWORD)
    assert is_in(client)
    client.post("/accounts/logout/")
    assert "no longer works" in client.get(link, follow=True).content.decode()


def test_no_mail_goes_to_an_address_nobody_has(db, client):
    response = client.post("/accounts/password/reset/", {"email": "nobody@example.org"})
    assert response.status_code == 302
    assert mail.outbox == []


def test_link_for_one_person_opens_nobody_elses_account(alice, bob, client):
    link = services.make_reset_link(alice).replace(
        services.make_reset_link(alice).split("/")[-2].split("-")[0] + "-",
        services.make_reset_link(bob).split("/")[-2].split("-")[0] + "-",
        1,
    )
    assert "no longer works" in client.get(link, follow=True).content.decode()


def test_changing_the_password_keeps_this_browser_and_ends_the_others(alice, client, ended, django_user_model):
    from django.test import Client

    other = Client()
    sign_in(client, "alice")
    sign_in(other, "alice")
    response = client.post(
        "/accounts/password/change/",
        {"oldpassword": PASSWORD, "password1": NEW_PASSWORD, "password2": NEW_PASSWORD},
    )
    assert response["Location"] == "/settings/"
    assert is_in(client)
    assert not is_in(other)
    assert {"user_id": alice.pk} in ended


def test_password_is_stored_with_argon2(db):
    user = services.create_user("dora", email="dora@example.org", password=PASSWORD)
    assert user.password.startswith("argon2")


def current_code(secret):
    return format_hotp_value(hotp_value(secret, next(yield_hotp_counters_from_time())))


def test_second_factor_is_asked_for_and_its_code_lets_in(alice, client):
    secret = generate_totp_secret()
    TOTP.activate(alice, secret)
    assert sign_in(client, "alice")["Location"] == "/accounts/2fa/authenticate/"
    assert not is_in(client)
    page = client.get("/accounts/2fa/authenticate/")
    assert page.status_code == 200
    client.post("/accounts/2fa/authenticate/", {"code": "000000"})
    assert not is_in(client)
    client.post("/accounts/2fa/authenticate/", {"code": current_code(secret)})
    assert is_in(client)


def test_admin_pages_have_no_way_round_the_second_factor(admin_user, client):
    TOTP.activate(admin_user, generate_totp_secret())
    response = client.post("/admin/login/", {"username": "admin", "password": PASSWORD})
    assert "/accounts/login/" in response["Location"]
    assert client.get("/admin/").status_code == 302


def test_second_factors_secret_is_stored_encrypted(alice):
    secret = generate_totp_secret()
    TOTP.activate(alice, secret)
    assert secret not in str(alice.authenticator_set.get().data)


@pytest.fixture
def use_keys(settings):
    def use(*keys: str) -> None:
        settings.DIALOOP = replace(settings.DIALOOP, encryption_keys=keys)

    return use


def test_second_factor_moves_to_the_first_key(alice, client, use_keys):
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    secret = generate_totp_secret()
    use_keys(old)
    TOTP.activate(alice, secret)
    codes = RecoveryCodes.activate(alice).get_unused_codes()
    use_keys(new, old)
    assert second_factor.rotate_encryption() == []
    use_keys(new)
    sign_in(client, "alice")
    client.post("/accounts/2fa/authenticate/", {"code": current_code(secret)})
    assert is_in(client)
    assert RecoveryCodes.activate(alice).get_unused_codes() == codes


def test_lost_key_of_a_second_factor_makes_every_code_wrong(alice, client, use_keys, caplog):
    """An empty secret would do for no crash, too; but anybody can work out its codes."""
    secret = generate_totp_secret()
    TOTP.activate(alice, secret)
    use_keys(Fernet.generate_key().decode())
    sign_in(client, "alice")
    for code in (current_code(secret), current_code(""), "000000"):
        response = client.post("/accounts/2fa/authenticate/", {"code": code})
        assert "Incorrect code" in response.content.decode()
    assert not is_in(client)
    assert "ENCRYPTION_KEYS" in caplog.text
    [sentence] = second_factor.rotate_encryption()
    assert "alice" in sentence and "ENCRYPTION_KEYS" in sentence


def test_recovery_codes_still_let_in_when_only_the_apps_key_is_lost(alice, client, use_keys):
    TOTP.activate(alice, generate_totp_secret())
    use_keys(Fernet.generate_key().decode())
    code = RecoveryCodes.activate(alice).get_unused_codes()[0]
    sign_in(client, "alice")
    client.post("/accounts/2fa/authenticate/", {"code": code})
    assert is_in(client)


def test_recovery_codes_that_cannot_be_read_are_not_shown(alice, client, use_keys):
    sign_in(client, "alice")
    TOTP.activate(alice, generate_totp_secret())
    RecoveryCodes.activate(alice)
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})
    assert client.get("/accounts/2fa/recovery-codes/").status_code == 200
    use_keys(Fernet.generate_key().decode())
    assert client.get("/accounts/2fa/").status_code == 200
    assert client.get("/accounts/2fa/recovery-codes/").status_code == 403
    assert client.get("/accounts/2fa/recovery-codes/generate/").status_code == 200
    client.post("/accounts/2fa/recovery-codes/generate/")
    assert client.get("/accounts/2fa/recovery-codes/").status_code == 200


def test_second_factor_is_set_up_on_our_own_pages(alice, client):
    sign_in(client, "alice")
    assert "Turn it on" in client.get("/accounts/2fa/").content.decode()
    confirm = client.get("/accounts/2fa/totp/activate/", follow=True)
    assert "Is it you?" in confirm.content.decode()
    page = client.post(confirm.redirect_chain[-1][0], {"password": PASSWORD}, follow=True)
    secret = page.context["form"].secret
    assert secret in page.content.decode()
    client.post("/accounts/2fa/totp/activate/", {"code": current_code(secret)})
    overview = client.get("/accounts/2fa/").content.decode()
    assert "An authenticator app is set up" in overview
    codes = client.get("/accounts/2fa/recovery-codes/").content.decode()
    assert "Each of these lets you in once" in codes


@pytest.mark.parametrize(
    "path",
    [
        "/accounts/login/",
        "/accounts/signup/",
        "/accounts/waiting/",
        "/accounts/inactive/",
        "/accounts/password/reset/",
        "/accounts/password/reset/done/",
        "/accounts/password/reset/key/done/",
    ],
)
def test_entrance_page_carries_nothing_inline(db, client, path):
    response = client.get(path)
    assert response.status_code == 200
    text = response.content.decode()
    assert not re.search(r"\sstyle=|\son[a-z]+=|<style|<script(?![^>]*\bsrc=)", text)
    assert text.count("<h1") == 1


def test_addresses_and_sessions_have_no_second_page(alice, client):
    client.force_login(alice)
    for path in ("/accounts/email/", "/accounts/sessions/"):
        assert client.get(path)["Location"] == "/settings/"
        assert client.post(path, {"email": "bob@example.org", "action_add": ""})["Location"] == "/settings/"
