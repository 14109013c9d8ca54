"""Search finds one's own words, whatever is typed, and nobody else's."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat.errors import InvalidError
from chat.models import Message
from chat.search import SnippetPart, mark, search_conversations
from chat.search_query import SearchQuery, parse_query
from tests.chat.conftest import make_conversation, make_message


def titles(user, query):
    return [result.conversation.title for result in search_conversations(user=user, query=query).results]


@pytest.fixture
def talks(alice, bob):
    make_conversation(alice, "Rivers", "Which river is longest?", "The Nile, says everybody.")
    make_conversation(alice, "Cooking", "How do I cook rice?", "Wash it. Boil it in C++ 🍚 time: 100% sure.")
    make_conversation(bob, "Rivers of Bob", "Tell me about the Nile", "It is long.")


def test_words_are_found_in_titles_and_texts(talks, alice):
    assert titles(alice, "nile") == ["Rivers"]
    assert titles(alice, "COOKING") == ["Cooking"]
    assert titles(alice, "river longest") == ["Rivers"]
    assert titles(alice, "river rice") == []
    assert titles(alice, "everybo") == ["Rivers"]


def test_nobody_finds_anothers_conversation(talks, alice, bob, charlie, admin_user):
    assert titles(bob, "nile") == ["Rivers of Bob"]
    assert titles(charlie, "nile") == titles(admin_user, "nile") == []


def test_deleted_conversation_is_not_found(talks, alice):
    alice.conversations.filter(title="Rivers").update(deleted_at=datetime.now(UTC))
    assert titles(alice, "nile") == titles(alice, "title:rivers") == []


def test_phrase_must_occur_as_written(talks, alice):
    assert titles(alice, '"says everybody"') == ["Rivers"]
    assert titles(alice, '"everybody says"') == []


def test_title_and_model_operators(talks, alice):
    assert titles(alice, "title:river") == ["Rivers"]
    assert titles(alice, "title:nile") == []
    assert titles(alice, "title:rivers rice") == []
    assert sorted(titles(alice, "model:tiny")) == ["Cooking", "Rivers"]
    assert titles(alice, "model:huge") == []
    talk = alice.conversations.get(title="Rivers")
    make_message(talk, "Another answer", role="assistant", parent=talk.current_leaf, model="huge")
    assert titles(alice, "model:huge nile") == ["Rivers"]


def test_dates_bound_the_messages(talks, alice):
    Message.objects.filter(content__contains="Nile").update(created_at=datetime(2025, 3, 2, tzinfo=UTC))
    assert titles(alice, "nile before:2025-03-03 after:2025-03-02") == ["Rivers"]
    assert titles(alice, "nile before:2025-03-02") == []
    assert titles(alice, "nile after:2025-03-03") == []


@pytest.mark.parametrize("query", ["🍚", "C++", "100%", "c+", "it", "% sure", "time:"])
def test_special_characters_and_short_words_are_found(talks, alice, query):
    assert titles(alice, query) == ["Cooking"]


def test_reply_is_found_once_it_has_ended_and_follows_changes(alice):
    talk = make_conversation(alice, "New", "Question")
    reply = make_message(talk, "zebra", role="assistant", parent=talk.current_leaf, status="streaming")
    Message.objects.filter(id=reply.id).update(status="complete", content="zebra crossing")
    assert titles(alice, "crossing") == ["New"]
    Message.objects.filter(id=reply.id).update(content="lion")
    assert titles(alice, "zebra") == []
    assert titles(alice, "lion") == ["New"]
    reply.delete()
    assert titles(alice, "lion") == []


def test_snippet_marks_the_hit_and_shows_its_surroundings(alice):
    make_conversation(alice, "Long", "word " * 500 + "Needle & <b>hay</b>" + " word" * 500)
    (result,) = search_conversations(user=alice, query="needle").results
    hits = [part.text for part in result.snippet if part.is_hit]
    shown = "".join(part.text for part in result.snippet)
    assert hits == ["Needle"]
    assert "& <b>hay</b>" in shown
    assert shown.startswith("…")
    assert shown.endswith("…")
    assert len(shown) < 260
    assert result.message.conversation == result.conversation


def test_marking_keeps_the_text():
    assert mark("The Nile, the nile", ["nile"]) == [
        SnippetPart("The ", False),
        SnippetPart("Nile", True),
        SnippetPart(", the ", False),
        SnippetPart("nile", True),
    ]
    assert mark("Nothing", []) == [SnippetPart("Nothing", False)]


def test_results_come_in_pages_of_three_queries(alice, django_assert_num_queries):
    for number in range(7):
        make_conversation(alice, f"Talk {number}", "the same needle")
    seen, cursor = [], None
    for expected in (3, 3, 1):
        with django_assert_num_queries(3):
            page = search_conversations(user=alice, query="needle", cursor=cursor, limit=3)
        assert len(page.results) == expected
        seen += [result.conversation.id for result in page.results]
        cursor = page.next_cursor
    assert len(set(seen)) == 7
    assert cursor is None


def test_made_up_cursor_is_invalid(alice):
    with pytest.raises(InvalidError):
        search_conversations(user=alice, query="x", cursor="nonsense")


def test_empty_query_finds_nothing(talks, alice):
    assert titles(alice, "") == titles(alice, '  "" ') == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a "b c" d', SearchQuery(terms=("a", "b c", "d"))),
        ('"open end', SearchQuery(terms=("open end",))),
        ('title:"two words" x', SearchQuery(terms=("x",), titles=("two words",))),
        ("before:2025-01-02", SearchQuery(before=datetime(2025, 1, 2, tzinfo=UTC))),
        ("before:soon", SearchQuery(terms=("before:soon",))),
        ("http://x:1 model:a/b@3", SearchQuery(terms=("http://x:1",), models=("a/b@3",))),
        ("a\x00b \ud800", SearchQuery(terms=("ab",))),
    ],
)
def test_query_is_taken_apart(text, expected):
    assert parse_query(text) == expected


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(max_size=40), st.text(alphabet="\"'\\()*:^-+&|!<>~ \u0000%_{}[]a2", max_size=20)))
def test_no_query_is_an_error(talks, alice, query):
    assert search_conversations(user=alice, query=query).results is not None


def test_migrations_leave_the_search_index_in_place(db):
    """A migration that rebuilds `chat_message` on SQLite drops the triggers and must call `create_index` again."""
    if connection.vendor == "sqlite":
        sql = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'chat_message'"
        expected = {"chat_search_insert", "chat_search_update", "chat_search_delete"}
    else:
        sql = "SELECT indexname FROM pg_indexes WHERE indexname = 'chat_message_search'"
        expected = {"chat_message_search"}
    with connection.cursor() as cursor:
        cursor.execute(sql)
        assert {name for (name,) in cursor.fetchall()} == expected
