"""Trees of messages for the tests of chat."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from chat.models import Conversation, Message


def make_message(conversation, content="Hello", *, role="user", parent=None, **fields):
    depth = parent.depth + 1 if parent else 0
    return Message.objects.create(
        conversation=conversation, parent=parent, depth=depth, role=role, content=content, **fields
    )


def make_conversation(owner, title="A talk", *texts, **fields):
    """The texts become turns, question and answer, one below the other."""
    conversation = Conversation.objects.create(owner=owner, title=title, model="tiny", **fields)
    start = timezone.now()
    parent = None
    for number, text in enumerate(texts):
        role = "assistant" if number % 2 else "user"
        written = start + timedelta(milliseconds=number)
        parent = make_message(conversation, text, role=role, parent=parent, created_at=written)
    if parent:
        conversation.current_leaf = parent
        conversation.save(update_fields=["current_leaf"])
    return conversation


@pytest.fixture
def talk(alice):
    return make_conversation(alice, "Rivers", "Which river is longest?", "The Nile.", "And in Europe?", "The Volga.")
