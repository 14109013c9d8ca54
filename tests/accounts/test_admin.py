import re

import pytest
from django.urls import reverse

from accounts import services
from accounts.models import ApiKey, User

PEOPLE = "/admin/accounts/user/"


@pytest.fixture
def admin_client(admin_user, client):
    client.force_login(admin_user)
    return client


def make_waiting(name):
    return User.objects.create_user(name, f"{name}@example.org", "pw", is_active=False)


def act(client, action, *users):
    return client.post(PEOPLE, {"action": action, "_selected_action": [user.pk for user in users]}, follow=True)


@pytest.mark.parametrize("name", ["alice", None])
def test_only_admins_see_the_people(alice, client, name):
    if name:
        client.force_login(alice)
    for path in (PEOPLE, f"{PEOPLE}{alice.pk}/change/", "/admin/accounts/apikey/", "/admin/auth/group/"):
        assert client.get(path).status_code == 302, path
    assert act(client, "deactivate", alice).status_code in {200, 403}
    alice.refresh_from_db()
    assert alice.is_active


def test_staff_who_are_not_admins_cannot_reach_people(alice, client):
    from django.contrib.auth.models import Permission

    alice.is_staff = True
    alice.save()
    alice.user_permissions.set(Permission.objects.all())
    client.force_login(alice)
    for path in (PEOPLE, "/admin/accounts/apikey/", f"{PEOPLE}{alice.pk}/change/"):
        assert client.get(path).status_code == 403, path


@pytest.mark.parametrize("path", [PEOPLE, f"{PEOPLE}add/", "/admin/accounts/apikey/", "/admin/auth/group/", "/admin/"])
def test_admin_page_renders(admin_client, alice, path):
    services.create_key(alice, name="laptop")
    make_waiting("dora")
    assert admin_client.get(path).status_code == 200


def test_person_and_key_pages_render(admin_client, alice):
    key, _ = services.create_key(alice, name="laptop")
    for path in (
        f"{PEOPLE}{alice.pk}/change/",
        f"{PEOPLE}{alice.pk}/password/",
        f"/admin/accounts/apikey/{key.pk}/change/",
    ):
        assert admin_client.get(path).status_code == 200, path


def test_who_waits_comes_first_and_the_side_bar_counts_them(admin_client, alice, bob):
    make_waiting("dora")
    page = admin_client.get(PEOPLE)
    assert next(iter(page.context["cl"].result_list)).username == "dora"
    badge = re.search(r'href="/admin/accounts/user/".*?</a>', page.content.decode(), re.DOTALL).group(0)
    assert re.search(r">\s*1\s*<", badge)
    filtered = admin_client.get(PEOPLE + "?state=waiting").context["cl"].result_list
    assert [user.username for user in filtered] == ["dora"]


def test_approving_and_rejecting_from_the_queue(admin_client, alice):
    dora, emil = make_waiting("dora"), make_waiting("emil")
    act(admin_client, "approve", dora, alice)
    act(admin_client, "reject", emil, alice)
    assert set(User.objects.values_list("username", flat=True)) == {"admin", "alice", "dora"}
    dora.refresh_from_db()
    assert dora.is_active and dora.approved_at


def test_link_to_set_a_password_is_shown_and_works(admin_client, alice, client):
    page = act(admin_client, "show_reset_link", alice).content.decode()
    link = re.search(r"http://testserver(/accounts/password/reset/key/[^\s<]+/)", page).group(1)
    assert "Choose a password" in client.get(link, follow=True).content.decode()


def test_suspending_goes_through_the_service_and_spares_the_last_admin(admin_client, admin_user, alice, ended):
    page = act(admin_client, "deactivate", alice, admin_user).content.decode()
    assert "only admin" in page
    alice.refresh_from_db()
    admin_user.refresh_from_db()
    assert not alice.is_active and admin_user.is_active
    assert {"user_id": alice.pk} in ended


def form_of(client, user):
    form = client.get(f"{PEOPLE}{user.pk}/change/").context["adminform"].form
    return {name: value for name, value in form.initial.items() if name in form.fields and value is not None}


def test_person_is_made_an_admin_and_back_but_never_the_last(admin_client, admin_user, alice):
    path = f"{PEOPLE}{alice.pk}/change/"
    fields = form_of(admin_client, alice)
    admin_client.post(path, fields | {"is_superuser": "on", "groups": []})
    alice.refresh_from_db()
    assert alice.is_superuser and alice.is_staff
    fields.pop("is_superuser")
    admin_client.post(path, fields | {"groups": []})
    alice.refresh_from_db()
    assert not alice.is_superuser and not alice.is_staff
    own = form_of(admin_client, admin_user)
    own.pop("is_superuser")
    assert admin_client.post(f"{PEOPLE}{admin_user.pk}/change/", own | {"groups": []}).status_code == 200
    admin_user.refresh_from_db()
    assert admin_user.is_superuser


def test_changed_address_is_the_one_to_sign_in_with(admin_client, alice, client):
    fields = form_of(admin_client, alice) | {"email": "New@Example.org", "groups": []}
    fields.pop("is_superuser")
    admin_client.post(f"{PEOPLE}{alice.pk}/change/", fields)
    client.logout()
    old, new = (
        client.post("/accounts/login/", {"login": login, "password": "correct horse battery staple"}).status_code
        for login in ("alice@example.org", "new@example.org")
    )
    assert (old, new) == (200, 302)


def test_person_an_admin_adds_may_sign_in(admin_client, client):
    password = "a long and quiet evening"
    fields = {"username": "dora", "email": "dora@example.org", "password1": password, "password2": password}
    admin_client.post(f"{PEOPLE}add/", fields | {"usable_password": "true"})
    user = User.objects.get(username="dora")
    assert user.is_active and user.approved_at and not user.is_superuser
    assert user.check_password(password)


def test_new_password_from_the_admin_ends_what_was_open(admin_client, alice, ended):
    password = "a long and quiet evening"
    fields = {"password1": password, "password2": password, "usable_password": "true"}
    admin_client.post(f"{PEOPLE}{alice.pk}/password/", fields)
    alice.refresh_from_db()
    assert alice.check_password(password)
    assert {"user_id": alice.pk} in ended


def test_key_is_revoked_and_never_shown_or_edited(admin_client, alice, ended):
    key, plain = services.create_key(alice, name="laptop")
    page = admin_client.get(f"/admin/accounts/apikey/{key.pk}/change/").content.decode()
    assert plain not in page and key.key_hash not in page
    assert admin_client.get("/admin/accounts/apikey/add/").status_code == 403
    admin_client.post(f"/admin/accounts/apikey/{key.pk}/change/", {"name": "stolen", "user": "1"})
    admin_client.post("/admin/accounts/apikey/", {"action": "revoke", "_selected_action": [key.pk]})
    stored = ApiKey.objects.get()
    assert stored.name == "laptop" and stored.revoked_at
    assert ended == [{"api_key_id": key.pk}]


def test_secrets_of_others_have_no_admin_page(admin_client):
    from django.urls import NoReverseMatch

    for name in ("mfa_authenticator", "account_emailaddress", "usersessions_usersession"):
        with pytest.raises(NoReverseMatch):
            reverse(f"admin:{name}_changelist")


def test_leaving_through_the_admin_ends_the_sockets_as_well(admin_client, ended):
    session_key = admin_client.session.session_key
    admin_client.get("/admin/")
    admin_client.post("/admin/logout/")
    assert {"session_key_hash": services.hash_session_key(session_key)} in ended
    assert admin_client.get("/settings/").status_code == 302


def test_admin_changes_his_own_password_where_everybody_does(admin_client):
    assert admin_client.get("/admin/password_change/")["Location"] == "/accounts/password/change/"
