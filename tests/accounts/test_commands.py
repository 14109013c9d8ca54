import io

import pytest
from django.core.management import CommandError, call_command

from accounts import services
from accounts.models import ApiKey, User


def run(*arguments):
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def test_created_user_may_sign_in_at_once_whatever_signup_says(db, client, set_signup):
    set_signup("closed")
    run("create_user", "dora", "--email", "dora@example.org", "--password", "short")
    assert client.post("/accounts/login/", {"login": "dora", "password": "short"}).status_code == 302
    user = User.objects.get()
    assert user.is_active and not user.is_waiting and not user.is_superuser


def test_created_admin_opens_the_admin(db, client):
    run("create_user", "root", "--email", "root@example.org", "--password", "short", "--admin")
    client.force_login(User.objects.get())
    assert client.get("/admin/").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("alice", "--email", "new@example.org", "--password", "p"), "username: A user with that username"),
        (("new", "--email", "alice@example.org", "--password", "p"), "email: A user with that e-mail"),
        (("new", "--email", "nonsense", "--password", "p"), "email: Enter a valid email address."),
        (("new", "--email", "new@example.org", "--password", ""), "--password must not be empty."),
    ],
)
def test_refusal_is_one_sentence_and_creates_nobody(alice, arguments, sentence):
    with pytest.raises(CommandError) as caught:
        run("create_user", *arguments)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
    assert caught.value.returncode == 1
    assert User.objects.count() == 1


def test_created_key_is_all_that_is_printed_and_it_works(alice):
    printed = run("create_api_key", "alice")
    assert printed == printed.strip() + "\n"
    assert services.authenticate_key(printed.strip()).user == alice


@pytest.mark.parametrize("command", ["create_api_key", "revoke_api_keys"])
def test_unknown_name_is_refused(db, command):
    with pytest.raises(CommandError, match="There is no user named 'nobody'"):
        run(command, "nobody")


def test_no_key_for_somebody_suspended(alice, ended):
    services.deactivate_user(alice)
    with pytest.raises(CommandError, match="may not sign in"):
        run("create_api_key", "alice")
    assert not ApiKey.objects.exists()


def test_revoking_ends_all_keys_of_one_person_and_their_sockets(alice, bob, ended):
    keys = [services.create_key(alice, name=name) for name in ("one", "two")]
    _, bobs = services.create_key(bob, name="his")
    assert run("revoke_api_keys", "alice") == "Revoked 2 keys.\n"
    assert all(services.authenticate_key(plain) is None for _, plain in keys)
    assert services.authenticate_key(bobs).user == bob
    assert sorted(call["api_key_id"] for call in ended) == sorted(key.pk for key, _ in keys)
