import pytest
from django.contrib.auth.models import Group
from django.db import IntegrityError

from accounts import services
from accounts.models import ApiKey, User, hash_key
from chat.errors import InvalidError, QuotaExceededError
from models_hub.models import Connection, RegisteredModel

PASSWORD = "correct horse battery staple"


def test_created_person_may_sign_in_by_name_and_by_email_in_any_case(db, client):
    services.create_user("dora", email="Dora@Example.org", password=PASSWORD)
    for login in ("dora", "DORA", "dora@example.org", "DORA@example.ORG"):
        response = client.post("/accounts/login/", {"login": login, "password": PASSWORD})
        assert response.status_code == 302, login
        client.logout()


@pytest.mark.parametrize(
    ("name", "email", "password", "field"),
    [
        ("alice", "new@example.org", PASSWORD, "username"),
        ("ALICE", "new@example.org", PASSWORD, "username"),
        ("new", "Alice@example.org", PASSWORD, "email"),
        ("new", "", PASSWORD, "email"),
        ("new", "not an address", PASSWORD, "email"),
        ("not a name!", "new@example.org", PASSWORD, "username"),
        ("", "new@example.org", PASSWORD, "username"),
        ("nul\x00", "new@example.org", PASSWORD, "username"),
        ("new", "new@example.org", "123", "password"),
    ],
)
def test_wrong_field_is_named_and_nobody_is_created(alice, name, email, password, field):
    with pytest.raises(InvalidError) as caught:
        services.create_user(name, email=email, password=password)
    assert list(caught.value.fields) == [field]
    assert User.objects.count() == 1


def test_two_people_cannot_have_one_address_whoever_creates_them(alice):
    with pytest.raises(IntegrityError):
        User.objects.create_user("other", "ALICE@example.org", PASSWORD)


def test_only_the_hash_of_a_key_is_stored(alice):
    key, plain = services.create_key(alice, name="laptop")
    stored = [str(value) for value in ApiKey.objects.values().get(pk=key.pk).values()]
    assert plain not in " ".join(stored)
    assert hash_key(plain) in stored
    assert plain.startswith("dl-") and len(plain) > 40


def test_key_opens_as_its_owner_until_it_is_revoked(alice, ended):
    key, plain = services.create_key(alice, name="laptop")
    assert services.authenticate_key(plain).user == alice
    assert services.authenticate_key(plain + "x") is None
    assert services.revoke_key(key)
    assert services.authenticate_key(plain) is None
    assert ended == [{"api_key_id": key.pk}]


def test_revoking_twice_ends_nothing_twice(alice, ended):
    key, _ = services.create_key(alice, name="laptop")
    assert services.revoke_key(key)
    assert not services.revoke_key(key)
    assert len(ended) == 1


def test_use_of_a_key_is_written_at_most_once_a_minute(alice, django_assert_num_queries):
    _, plain = services.create_key(alice, name="laptop")
    with django_assert_num_queries(2):
        services.authenticate_key(plain)
    with django_assert_num_queries(1):
        services.authenticate_key(plain)
    assert ApiKey.objects.get().last_used_at is not None


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "a\x00b"])
def test_key_needs_a_name_that_can_be_stored(alice, name):
    with pytest.raises(InvalidError):
        services.create_key(alice, name=name)
    assert not ApiKey.objects.exists()


def test_number_of_keys_is_bounded_and_revoked_ones_do_not_count(alice, ended, monkeypatch):
    monkeypatch.setattr(services, "MAX_API_KEYS", 2)
    first, _ = services.create_key(alice, name="1")
    services.create_key(alice, name="2")
    with pytest.raises(QuotaExceededError):
        services.create_key(alice, name="3")
    services.revoke_key(first)
    services.create_key(alice, name="3")


def test_suspending_ends_sessions_sockets_and_keys(alice, client, ended):
    _, plain = services.create_key(alice, name="laptop")
    client.post("/accounts/login/", {"login": "alice", "password": PASSWORD})
    session_key = client.session.session_key
    services.deactivate_user(alice)
    assert client.get("/settings/").status_code == 302
    assert services.authenticate_key(plain) is None
    assert {"user_id": alice.pk} in ended
    assert {"session_key_hash": services.hash_session_key(session_key)} in ended
    assert not alice.is_active and not alice.is_waiting


def test_last_admin_cannot_be_suspended_or_deleted(admin_user, ended):
    for attempt in (services.deactivate_user, services.delete_user):
        with pytest.raises(InvalidError):
            attempt(admin_user)
    admin_user.refresh_from_db()
    assert admin_user.is_active and ended == []


def test_rejecting_removes_only_who_waits(alice, bob):
    User.objects.filter(pk=bob.pk).update(is_active=False)
    assert not services.reject_user(alice)
    assert services.reject_user(bob)
    assert list(User.objects.all()) == [alice]


def test_suspended_person_is_not_in_the_queue_and_cannot_be_rejected(alice, ended):
    services.deactivate_user(alice)
    assert not services.reject_user(alice)
    assert services.approve_user(alice)
    assert alice.is_active


def test_profile_change_with_one_wrong_field_changes_nothing(alice):
    with pytest.raises(InvalidError) as caught:
        services.update_profile(alice, name="Alice", theme="pink")
    assert list(caught.value.fields) == ["theme"]
    alice.refresh_from_db()
    assert (alice.name, alice.theme) == ("alice", "system")


def test_model_that_is_not_offered_cannot_be_the_default(alice):
    with pytest.raises(InvalidError) as caught:
        services.update_profile(alice, default_model="no-such-model")
    assert list(caught.value.fields) == ["default_model"]


def test_default_model_may_be_any_model_offered_and_none_kept_for_a_group(alice):
    connection = Connection.objects.create(name="OpenAI", kind="openai", base_url="http://127.0.0.1:9/v1")
    RegisteredModel.objects.create(slug="vendor/gpt-3.5-turbo", name="GPT", connection=connection)
    reserved = RegisteredModel.objects.create(slug="reserved", name="Reserved", connection=connection)
    reserved.groups.add(Group.objects.create(name="others"))
    services.update_profile(alice, default_model="vendor/gpt-3.5-turbo")
    with pytest.raises(InvalidError):
        services.update_profile(alice, default_model="reserved")
    alice.refresh_from_db()
    assert alice.default_model == "vendor/gpt-3.5-turbo"
