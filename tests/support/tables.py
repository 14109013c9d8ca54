"""All that the database holds, to compare before and after a call that must change nothing."""

from __future__ import annotations

from django.db import connection

# What signing in and asking leave behind by design, and what is never written at run time.
APART = ("django_session", "usersessions_usersession", "django_migrations", "django_admin_log", "sqlite_")
FLEETING = {"last_login", "last_used_at"}

Dump = dict[str, list[str]]


def dump_tables() -> Dump:
    """Every row of every table as text, in an order that does not depend on when it was written."""
    with connection.cursor() as cursor:
        names = [name for name in connection.introspection.table_names(cursor) if not name.startswith(APART)]
        return {name: _rows(cursor, name) for name in names}


def changes(before: Dump, after: Dump) -> dict[str, list[str]]:
    """The rows that went (-) and came (+), by table; empty when nothing changed."""
    found = {}
    for name in before.keys() | after.keys():
        old, new = before.get(name, []), after.get(name, [])
        if old != new:
            gone, come = set(old) - set(new), set(new) - set(old)
            found[name] = [*(f"- {row}" for row in sorted(gone)), *(f"+ {row}" for row in sorted(come))]
    return found


def _rows(cursor, name: str) -> list[str]:
    cursor.execute(f"SELECT * FROM {connection.ops.quote_name(name)}")  # noqa: S608 - a name the database told us
    kept = [place for place, column in enumerate(cursor.description) if column[0] not in FLEETING]
    return sorted(repr([row[place] for place in kept]) for row in cursor.fetchall())
