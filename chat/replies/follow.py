"""What somebody who opens or stops something needs to know first. One short synchronous call each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Q

from chat import services
from chat.errors import NotFoundError
from chat.models import RUNNING, Message
from chat.replies import store
from chat.replies.start import Asker, get_asker, get_reply
from chat.selectors import get_conversation, get_message, with_opinions
from chat.serializers import conversation_to_dict, message_to_dict
from models_hub.base import Role


@dataclass(frozen=True)
class RepliesToShow:
    current_leaf_id: str | None
    running: list[dict[str, Any]]
    ended: list[dict[str, Any]]


def check_conversation(asker: Asker, conversation_id: UUID) -> None:
    """Raises NotFoundError for somebody else's and for none."""
    get_conversation(conversation_id, user=get_asker(asker))


def list_replies_to_show(asker: Asker, conversation_id: UUID, named: Collection[UUID]) -> RepliesToShow:
    """The replies of a conversation that run, and those of the named ones that have ended."""
    conversation = get_conversation(conversation_id, user=get_asker(asker))
    rows = with_opinions(Message.objects.filter(conversation=conversation, role=Role.ASSISTANT))
    shown = list(rows.filter(Q(status__in=RUNNING) | Q(id__in=named)).order_by("created_at"))
    return RepliesToShow(
        current_leaf_id=conversation.current_leaf_id and str(conversation.current_leaf_id),
        running=[message_to_dict(message) for message in shown if message.is_running],
        ended=[message_to_dict(message) for message in shown if not message.is_running],
    )


def select_leaf(asker: Asker, conversation_id: UUID, message_id: UUID) -> dict[str, Any]:
    """Show this branch from now on. Returns the conversation."""
    user = get_asker(asker)
    conversation = get_conversation(conversation_id, user=user)
    message = get_message(message_id, user=user)
    if message.conversation_id != conversation.id:
        raise NotFoundError("message_id names no message of this conversation.")
    services.select_leaf(conversation, message)
    return conversation_to_dict(conversation)


def cancel_reply(asker: Asker, message_id: UUID) -> dict[str, Any] | None:
    """Set the stop marker. Returns the message when it had ended already."""
    reply = get_reply(get_asker(asker), message_id)
    return None if store.request_cancel(reply.id) else store.get_message_dict(reply.id)
