"""What a change writes, whom it tells, and that a refused one changes nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from chat import services
from chat.errors import InvalidError, ModelUnavailableError, NotFoundError, TooLongError
from chat.models import Conversation, Message
from chat.search import search_conversations
from chat.selectors import get_branch, get_deleted_conversation
from chat.tasks import purge_bin
from chat.text import check_text
from tests.chat.conftest import make_conversation, make_message


@pytest.fixture
def told(monkeypatch):
    """What went out to which person's sockets."""
    announced = []
    monkeypatch.setattr(services, "announce", lambda user_id, event: announced.append((user_id, event.to_dict())))
    return announced


def test_change_writes_all_and_tells_the_owner_once(talk, alice, told, settings):
    services.change_conversation(
        talk, title="  Long\n rivers ", pinned=True, system_prompt="Be brief.", options={"temperature": 0.1}
    )
    talk.refresh_from_db()
    assert talk.title == "Long rivers"
    assert talk.pinned_at is not None
    assert talk.system_prompt == "Be brief."
    assert talk.options == {"temperature": 0.1}
    ((user_id, frame),) = told
    assert user_id == alice.id
    assert frame["type"] == "conversation.updated"
    assert frame["conversation"]["title"] == "Long rivers"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"title": "   "}, InvalidError),
        ({"title": "a\x00b"}, InvalidError),
        ({"title": "\ud800"}, InvalidError),
        ({"title": "x" * 201}, TooLongError),
        ({"system_prompt": "x" * 100_001}, TooLongError),
        ({"options": {"temperature": 3}}, InvalidError),
        ({"options": {"unknown": 3}}, InvalidError),
        ({"options": {"system_prompt": "x"}}, InvalidError),
        ({"model": "nobody-knows"}, ModelUnavailableError),
        ({"model": ""}, InvalidError),
    ],
)
def test_refused_change_changes_nothing(talk, told, change, error):
    before = Conversation.objects.filter(id=talk.id).values().get()
    with pytest.raises(error):
        services.change_conversation(talk, **({"pinned": True, "title": "New"} | change))
    assert Conversation.objects.filter(id=talk.id).values().get() == before
    assert told == []


def test_change_of_nothing_is_silent(talk, told):
    services.change_conversation(talk, pinned=False)
    assert told == []


def test_deleted_conversation_comes_back_as_it_was(talk, alice, told):
    before = Conversation.objects.filter(id=talk.id).values().get()
    services.delete_conversation(talk)
    services.delete_conversation(talk)
    services.restore_conversation(get_deleted_conversation(talk.id, user=alice))
    assert Conversation.objects.filter(id=talk.id).values().get() == before
    assert [frame["type"] for _user, frame in told] == ["conversation.deleted", "conversation.updated"]


def test_selecting_a_message_shows_its_branch_to_the_end(talk, told):
    first, _answer, _question, last = get_branch(talk).messages
    edited = make_message(talk, "Which is shortest?")
    reply = make_message(talk, "The Roe.", role="assistant", parent=edited)
    services.select_leaf(talk, edited)
    assert Conversation.objects.get(id=talk.id).current_leaf_id == reply.id
    services.select_leaf(talk, first)
    assert Conversation.objects.get(id=talk.id).current_leaf_id == last.id
    assert [frame["conversation"]["current_leaf_id"] for _user, frame in told] == [str(reply.id), str(last.id)]


def test_message_of_another_conversation_cannot_be_selected(talk, alice, told):
    other = make_conversation(alice, "Other", "Hi")
    with pytest.raises(NotFoundError):
        services.select_leaf(talk, other.current_leaf)
    assert told == []


def test_purge_ends_what_was_in_the_bin_long_enough(alice, bob):
    now = timezone.now()
    old = make_conversation(alice, "Old", "ancient words", "yes", deleted_at=now - timedelta(days=31))
    recent = make_conversation(alice, "Recent", "words", deleted_at=now - timedelta(days=29))
    kept = make_conversation(bob, "Kept", "ancient words")
    assert purge_bin.run() == 1
    assert set(Conversation.objects.all()) == {recent, kept}
    assert not Message.objects.filter(conversation_id=old.id).exists()
    assert len(search_conversations(user=bob, query="ancient").results) == 1
    assert services.purge_deleted_conversations() == 0


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        ("  two\n\nlines  ", "two lines"),
        ("word " * 50, "word word word word word word word word word word word…"),
        ("x" * 500, "x" * 59 + "…"),
        ("👩‍👩‍👧 family", "👩‍👩‍👧 family"),
    ],
)
def test_title_is_the_first_words(text, title):
    assert services.title_from(text) == title


@pytest.mark.parametrize("value", [None, 3, "", " \n", "a\x00", "\udfff"])
def test_text_that_cannot_be_kept_is_invalid(value):
    with pytest.raises(InvalidError):
        check_text(value, limit=10, field="content")


def test_text_is_counted_in_code_points():
    assert check_text("🍚" * 10, limit=10, field="content") == "🍚" * 10
    with pytest.raises(TooLongError):
        check_text("🍚" * 11, limit=10, field="content")
    assert check_text("", limit=1, field="x", required=False) == ""
