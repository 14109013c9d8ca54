"""The full-text index over messages: FTS5 with trigrams on SQLite, GIN on PostgreSQL. The database keeps it by itself.

A reply is indexed once, when it has ended: its text is written every second while it runs. On SQLite a migration that
makes Django rebuild `chat_message` drops the triggers, so it has to call `create_index` again (a test says so).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models.expressions import RawSQL

# The trigram index knows nothing shorter. PostgreSQL's vectors hold at most a megabyte.
MIN_TRIGRAM = 3
MAX_INDEXED_CHARS = 200_000

_IS_ENDED = "NEW.status NOT IN ('pending', 'streaming')"
_WRITE = """
    INSERT OR IGNORE INTO chat_search_row (message_id) VALUES (NEW.id);
    DELETE FROM chat_search WHERE rowid = (SELECT id FROM chat_search_row WHERE message_id = NEW.id);
    INSERT INTO chat_search (rowid, text) SELECT id, NEW.content FROM chat_search_row WHERE message_id = NEW.id;
"""
SQLITE_STATEMENTS = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS chat_search USING fts5(text, tokenize = 'trigram')",
    "CREATE TABLE IF NOT EXISTS chat_search_row (id INTEGER PRIMARY KEY, message_id char(32) NOT NULL UNIQUE)",
    f"""CREATE TRIGGER IF NOT EXISTS chat_search_insert AFTER INSERT ON chat_message WHEN {_IS_ENDED}
    BEGIN {_WRITE} END""",
    f"""CREATE TRIGGER IF NOT EXISTS chat_search_update AFTER UPDATE OF content, status ON chat_message
    WHEN {_IS_ENDED} AND (OLD.content <> NEW.content OR OLD.status IN ('pending', 'streaming'))
    BEGIN {_WRITE} END""",
    """CREATE TRIGGER IF NOT EXISTS chat_search_delete AFTER DELETE ON chat_message BEGIN
    DELETE FROM chat_search WHERE rowid = (SELECT id FROM chat_search_row WHERE message_id = OLD.id);
    DELETE FROM chat_search_row WHERE message_id = OLD.id; END""",
    """INSERT OR IGNORE INTO chat_search_row (message_id)
    SELECT id FROM chat_message WHERE status NOT IN ('pending', 'streaming')""",
    """INSERT INTO chat_search (rowid, text) SELECT r.id, m.content FROM chat_search_row r
    JOIN chat_message m ON m.id = r.message_id WHERE r.id NOT IN (SELECT rowid FROM chat_search)""",
)
POSTGRES_STATEMENTS = (
    # Stored, because taking every text apart again for each search costs seconds.
    f"""ALTER TABLE chat_message ADD COLUMN IF NOT EXISTS search_vector tsvector GENERATED ALWAYS AS (
    CASE WHEN status IN ('pending', 'streaming') THEN NULL
    ELSE to_tsvector('simple'::regconfig, left(content, {MAX_INDEXED_CHARS})) END) STORED""",
    "CREATE INDEX IF NOT EXISTS chat_message_search ON chat_message USING gin (search_vector)",
)


def create_index(apps: Any, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """May be run again at any time: adds what is missing."""
    is_postgres = schema_editor.connection.vendor == "postgresql"
    for statement in POSTGRES_STATEMENTS if is_postgres else SQLITE_STATEMENTS:
        schema_editor.execute(statement, params=None)


def drop_index(apps: Any, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE chat_message DROP COLUMN IF EXISTS search_vector", params=None)
        return
    for name in ("insert", "update", "delete"):
        schema_editor.execute(f"DROP TRIGGER IF EXISTS chat_search_{name}", params=None)
    schema_editor.execute("DROP TABLE IF EXISTS chat_search", params=None)
    schema_editor.execute("DROP TABLE IF EXISTS chat_search_row", params=None)


def is_indexed(term: str, vendor: str) -> bool:
    """Whether the index can find this term at all; others have to be looked for in the texts themselves."""
    if vendor == "postgresql":
        return any(character.isalnum() for character in term)
    return len(term) >= MIN_TRIGRAM


def matching_message_ids(terms: Sequence[str], vendor: str) -> RawSQL:
    """The ids of all messages, whosever they are, that contain all terms: narrow it down to one person's."""
    if vendor == "postgresql":
        query = " & ".join(_postgres_term(term) for term in terms)
        return RawSQL("SELECT id FROM chat_message WHERE search_vector @@ to_tsquery('simple', %s)", [query])
    query = " AND ".join('"' + term.replace('"', '""') + '"' for term in terms)
    return RawSQL(
        "SELECT r.message_id FROM chat_search s JOIN chat_search_row r ON r.id = s.rowid WHERE chat_search MATCH %s",
        [query],
    )


def _postgres_term(term: str) -> str:
    """Its words one after the other, each of which may go on: quoted, the parser takes it apart as it did the text."""
    quoted = term.replace("\\", "\\\\").replace("'", "''")
    return f"'{quoted}':*"
