"""The ground the other tests stand on: our database and Valkey are the real ones."""

import pytest
from django.db import connection

from config.valkey import get_valkey_sync


def test_valkey_answers():
    assert get_valkey_sync().ping()


@pytest.mark.django_db(transaction=True)
def test_sqlite_is_a_file_in_wal_mode():
    if connection.vendor != "sqlite":
        assert connection.vendor == "postgresql"
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        assert cursor.fetchone() == ("wal",)


def test_alice_exists(alice):
    assert alice.check_password("correct horse battery staple")
