"""Who sees which conversation, and that a long one costs no more than a short one."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from chat.cursors import encode_cursor
from chat.errors import InvalidError, NotFoundError
from chat.models import Message
from chat.selectors import (
    get_branch,
    get_conversation,
    get_deleted_conversation,
    get_message,
    get_newest_leaf,
    list_conversations,
)
from tests.chat.conftest import make_conversation, make_message


def delete(conversation):
    conversation.deleted_at = timezone.now()
    conversation.save(update_fields=["deleted_at"])


def test_owner_gets_conversation_and_message(talk, alice):
    assert get_conversation(talk.id, user=alice) == talk
    assert get_message(talk.current_leaf_id, user=alice).content == "The Volga."


@pytest.mark.parametrize("who", ["bob", "charlie", "admin_user"])
def test_others_find_nothing_even_an_admin(talk, who, request):
    other = request.getfixturevalue(who)
    with pytest.raises(NotFoundError):
        get_conversation(talk.id, user=other)
    with pytest.raises(NotFoundError):
        get_message(talk.current_leaf_id, user=other)
    assert list_conversations(user=other).items == []
    delete(talk)
    with pytest.raises(NotFoundError):
        get_deleted_conversation(talk.id, user=other)


def test_deleted_conversation_is_in_the_bin_only(talk, alice):
    with pytest.raises(NotFoundError):
        get_deleted_conversation(talk.id, user=alice)
    delete(talk)
    assert get_deleted_conversation(talk.id, user=alice) == talk
    assert list_conversations(user=alice).items == []
    with pytest.raises(NotFoundError):
        get_conversation(talk.id, user=alice)
    with pytest.raises(NotFoundError):
        get_message(talk.current_leaf_id, user=alice)


def test_pages_hold_every_conversation_once_pinned_first(alice, django_assert_num_queries):
    now = timezone.now()
    made = [make_conversation(alice, f"Talk {n}", updated_at=now - timedelta(minutes=n // 3)) for n in range(11)]
    made[7].pinned_at = now
    made[7].save(update_fields=["pinned_at"])
    with django_assert_num_queries(2):
        page = list_conversations(user=alice, limit=4)
    assert page.items[0] == made[7]
    seen = list(page.items)
    while page.next_cursor:
        page = list_conversations(user=alice, cursor=page.next_cursor, limit=4)
        seen += page.items
    assert len(seen) == 11
    assert set(seen) == set(made)
    unpinned = [conversation.updated_at for conversation in seen[1:]]
    assert unpinned == sorted(unpinned, reverse=True)


@pytest.mark.parametrize("cursor", ["x", "é", "====", "W10", "WyJhIiwiYiJd", "a" * 600, encode_cursor("1", "2", "3")])
def test_made_up_cursor_is_invalid(alice, cursor):
    with pytest.raises(InvalidError):
        list_conversations(user=alice, cursor=cursor)


def test_branch_is_what_leads_to_the_leaf_with_siblings_in_order(talk, alice):
    first, answer, question, _last = get_branch(talk).messages
    other = make_message(talk, "The Danube.", role="assistant", parent=question)
    edited = make_message(talk, "Which is shortest?")
    branch = get_branch(talk, leaf=other.id)
    assert [message.content for message in branch.messages] == [
        first.content,
        "The Nile.",
        question.content,
        "The Danube.",
    ]
    assert branch.messages[3].sibling_ids == [talk.current_leaf_id, other.id]
    assert branch.messages[0].sibling_ids == [first.id, edited.id]
    assert branch.messages[1].sibling_ids == [answer.id]
    assert branch.before is None


def test_branch_comes_in_windows_from_the_end(alice, django_assert_num_queries):
    talk = make_conversation(alice, "Long", *(f"Text {n}" for n in range(75)))
    texts, before = [], None
    for expected in (30, 30, 15):
        with django_assert_num_queries(2):
            branch = get_branch(talk, before=before)
        assert len(branch.messages) == expected
        texts = [message.content for message in branch.messages] + texts
        before = branch.before
    assert texts == [f"Text {n}" for n in range(75)]
    assert before is None


def test_branch_of_three_thousand_messages_takes_two_queries(alice, django_assert_num_queries):
    talk = make_conversation(alice, "Very long")
    rows, parent = [], None
    for number in range(3000):
        parent = Message(conversation=talk, parent=parent, depth=number, role="user", content="x" * 500)
        rows.append(parent)
    Message.objects.bulk_create(rows, batch_size=500)
    talk.current_leaf = parent
    with django_assert_num_queries(2):
        branch = get_branch(talk)
    assert [message.depth for message in branch.messages] == list(range(2970, 3000))


def test_empty_conversation_has_an_empty_branch(alice):
    branch = get_branch(make_conversation(alice))
    assert branch.messages == []
    assert branch.before is None


def test_message_of_another_conversation_is_not_on_the_branch(talk, alice):
    other = make_conversation(alice, "Other", "Hi")
    for unknown in (uuid4(), other.current_leaf_id):
        with pytest.raises(NotFoundError):
            get_branch(talk, leaf=unknown)
        with pytest.raises(NotFoundError):
            get_branch(talk, before=unknown)
        with pytest.raises(NotFoundError):
            get_newest_leaf(talk, unknown)


def test_newest_leaf_follows_the_newest_child(talk):
    question = get_branch(talk).messages[2]
    newest = make_message(talk, "The Danube.", role="assistant", parent=question)
    assert get_newest_leaf(talk, question.id) == newest.id
    assert get_newest_leaf(talk, newest.id) == newest.id
