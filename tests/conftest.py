"""Fixtures everybody uses: the people (alice owns, bob is a teammate, charlie a stranger), and a clean Valkey."""

from __future__ import annotations

import os
from functools import lru_cache

import pytest
from django.conf import settings
from django.contrib.auth.hashers import make_password

REQUIRE_ALL = os.environ.get("REQUIRE_ALL") == "1"
PASSWORD = "correct horse battery staple"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With REQUIRE_ALL=1 a skip is a failure: CI may not pass by leaving things out."""
    outcome = yield
    report = outcome.get_result()
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"REQUIRE_ALL=1 allows no skip: {report.longrepr}"


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Side by side (`-n 2 --dist loadgroup`), what starts torch, Chromium or the whole product runs one at a time."""
    for item in items:
        if item.path.parent.name == "engine" or any(
            item.get_closest_marker(name) for name in ("engine", "browser", "kill")
        ):
            item.add_marker(pytest.mark.xdist_group("heavy"))


@pytest.fixture(scope="session", autouse=True)
def _plain_static_files():
    """Templates render without collectstatic."""
    settings.STORAGES["staticfiles"]["BACKEND"] = "django.contrib.staticfiles.storage.StaticFilesStorage"


@pytest.fixture(autouse=True)
def _clean_valkey():
    from config.valkey import get_valkey_sync

    yield
    get_valkey_sync().flushdb()


@lru_cache(maxsize=1)
def _password_hash() -> str:
    """Argon2 is slow on purpose; the people of all tests share one hash."""
    return make_password(PASSWORD)


def make_user(username: str, **fields):
    from accounts.models import User

    email = f"{username}@example.org"
    return User.objects.create(username=username, email=email, password=_password_hash(), **fields)


@pytest.fixture
def alice(db):
    return make_user("alice")


@pytest.fixture
def bob(db):
    return make_user("bob")


@pytest.fixture
def charlie(db):
    return make_user("charlie")


@pytest.fixture
def admin_user(db):
    return make_user("admin", is_staff=True, is_superuser=True)


@pytest.fixture
def password():
    return PASSWORD
