"""The first admin: by variables, or by a link that works once."""

from dataclasses import replace

from accounts import services
from accounts.models import User

NEW_PASSWORD = "a long and quiet evening"


def test_variables_make_an_admin_who_may_sign_in(db, client, settings):
    chosen = replace(
        settings.DIALOOP, superuser_username="root", superuser_email="root@example.org", superuser_password="short"
    )
    assert services.ensure_first_admin(chosen) is None
    assert services.ensure_first_admin(chosen) is None
    admin = User.objects.get()
    assert admin.is_superuser and admin.is_staff and admin.is_active
    client.post("/accounts/login/", {"login": "root@example.org", "password": "short"})
    assert client.get("/admin/").status_code == 200


def test_without_variables_a_link_lets_the_first_admin_choose_a_password(db, client, settings):
    link = services.ensure_first_admin(settings.DIALOOP)
    page = client.get(link, follow=True)
    assert "Choose a password" in page.content.decode()
    client.post(page.redirect_chain[-1][0], {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD})
    client.post("/accounts/login/", {"login": "admin", "password": NEW_PASSWORD})
    assert client.get("/admin/").status_code == 200
    assert services.ensure_first_admin(settings.DIALOOP) is None


def test_used_link_is_dead(db, client, settings):
    link = services.ensure_first_admin(settings.DIALOOP)
    page = client.get(link, follow=True)
    form = page.redirect_chain[-1][0]
    client.post(form, {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD})
    for address in (link, form):
        assert "no longer works" in client.get(address, follow=True).content.decode()
    client.post(form, {"password1": "stolen stolen stolen", "password2": "stolen stolen stolen"})
    assert User.objects.get().check_password(NEW_PASSWORD)


def test_unused_link_is_offered_again_and_no_second_admin_is_made(db, settings):
    assert services.ensure_first_admin(settings.DIALOOP)
    assert services.ensure_first_admin(settings.DIALOOP)
    assert User.objects.count() == 1


def test_nothing_happens_where_an_admin_exists(admin_user, settings):
    assert services.ensure_first_admin(settings.DIALOOP) is None
    assert User.objects.count() == 1
