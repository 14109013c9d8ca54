"""Reads of conversations that know who asks. Another person's id, and one in the bin, is not found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet

from chat.cursors import decode_cursor, encode_cursor
from chat.errors import NotFoundError
from chat.models import Choice, Conversation, Message

if TYPE_CHECKING:
    from accounts.models import User

PAGE_SIZE = 30
MAX_PAGE_SIZE = 100
WINDOW = 30
MAX_WINDOW = 300
SHOWN_ABOVE = 4


@dataclass(frozen=True)
class ConversationPage:
    items: list[Conversation]
    next_cursor: str | None


@dataclass(frozen=True)
class Branch:
    """The end of a branch, oldest message first; each knows `sibling_ids`, in order, and `can_continue`."""

    messages: list[Message]
    before: UUID | None
    """Pass it to get the messages above these; None at the root."""


def get_conversation(conversation_id: UUID, *, user: User) -> Conversation:
    """Raises NotFoundError."""
    rows = owned_conversations(user=user).select_related("current_leaf")
    conversation = rows.filter(id=conversation_id).first()
    if conversation is None:
        raise NotFoundError("There is no such conversation.")
    return conversation


def get_deleted_conversation(conversation_id: UUID, *, user: User) -> Conversation:
    """One that is still in the bin. Raises NotFoundError."""
    conversation = Conversation.objects.filter(id=conversation_id, owner=user).exclude(deleted_at=None).first()
    if conversation is None:
        raise NotFoundError("There is no such conversation in the bin.")
    return conversation


def get_message(message_id: UUID, *, user: User) -> Message:
    """With its conversation, its version and what was thought of it. Raises NotFoundError."""
    rows = with_opinions(Message.objects.select_related("conversation"))
    message = rows.filter(id=message_id, conversation__owner=user, conversation__deleted_at=None).first()
    if message is None:
        raise NotFoundError("There is no such message.")
    return message


def with_opinions(rows: QuerySet[Message]) -> QuerySet[Message]:
    """With all that `message_to_dict` tells of a reply, in the same query: version, rating, correction, choice."""
    chosen = Choice.objects.filter(chosen=OuterRef("pk"))
    return rows.select_related("version", "feedback", "correction").annotate(is_chosen=Exists(chosen))


def owned_conversations(*, user: User) -> QuerySet[Conversation]:
    return Conversation.objects.filter(owner=user, deleted_at=None)


def list_conversations(*, user: User, cursor: str | None = None, limit: int = PAGE_SIZE) -> ConversationPage:
    """The pinned ones, all on the first page, then the others by their last change. Raises InvalidError (cursor)."""
    limit = max(1, min(limit, MAX_PAGE_SIZE))
    others = owned_conversations(user=user).filter(pinned_at=None)
    pinned: list[Conversation] = []
    if cursor:
        others = others.filter(_older_than(*decode_cursor(cursor, datetime, UUID)))
    else:
        pinned = list(owned_conversations(user=user).exclude(pinned_at=None).order_by("-pinned_at", "-id"))
    rows = list(others.order_by("-updated_at", "-id")[: limit + 1])
    return ConversationPage([*pinned, *rows[:limit]], _next_cursor(rows, limit))


def _older_than(updated_at: datetime, conversation_id: UUID) -> Q:
    return Q(updated_at__lt=updated_at) | Q(updated_at=updated_at, id__lt=conversation_id)


def _next_cursor(rows: list[Conversation], limit: int) -> str | None:
    if len(rows) <= limit:
        return None
    return encode_cursor(rows[limit - 1].updated_at, rows[limit - 1].id)


def get_branch(
    conversation: Conversation,
    *,
    leaf: UUID | None = None,
    limit: int = WINDOW,
    before: UUID | None = None,
    through: UUID | None = None,
) -> Branch:
    """The last `limit` messages of the branch ending in `leaf` (default: the one being shown), or those above `before`.

    `through` asks for the branch on which this message is, and for enough of it to show the message.

    Two queries, whatever the length: the shape of the tree without its texts, then the window's messages.
    Raises NotFoundError when one of them is not in this conversation.
    """
    tree = _load_tree(conversation)
    start = before or leaf or (tree.newest_leaf(through) if through else conversation.current_leaf_id)
    if start is None:
        return Branch([], None)
    path = tree.path_to(start)
    if before is not None:
        path.pop()
    if through in path:
        limit = min(max(limit, len(path) - path.index(through) + SHOWN_ABOVE), MAX_WINDOW)
    window = path[-limit:]
    messages = with_opinions(Message.objects.all()).in_bulk(window)
    # A message may vanish between the two queries only with its conversation.
    shown = [messages[message_id] for message_id in window if message_id in messages]
    for message in shown:
        message.sibling_ids = tree.siblings_of(message.id)
    return Branch(shown, window[0] if len(window) < len(path) else None)


def get_newest_leaf(conversation: Conversation, message_id: UUID) -> UUID:
    """The end of the branch below a message, following the newest child each time. Raises NotFoundError."""
    return _load_tree(conversation).newest_leaf(message_id)


@dataclass(frozen=True)
class _Tree:
    parents: dict[UUID, UUID | None]
    children: dict[UUID | None, list[UUID]]

    def path_to(self, message_id: UUID) -> list[UUID]:
        """From the root to the message. Raises NotFoundError."""
        self._require(message_id)
        path = []
        current: UUID | None = message_id
        while current is not None:
            path.append(current)
            current = self.parents[current]
        return path[::-1]

    def newest_leaf(self, message_id: UUID) -> UUID:
        """The end of the branch below, following the newest child each time. Raises NotFoundError."""
        self._require(message_id)
        while children := self.children.get(message_id):
            message_id = children[-1]
        return message_id

    def _require(self, message_id: UUID) -> None:
        if message_id not in self.parents:
            raise NotFoundError("There is no such message in this conversation.")

    def siblings_of(self, message_id: UUID) -> list[UUID]:
        return self.children[self.parents[message_id]]


def _load_tree(conversation: Conversation) -> _Tree:
    rows = Message.objects.filter(conversation=conversation).order_by("created_at", "id").values_list("id", "parent_id")
    parents: dict[UUID, UUID | None] = {}
    children: dict[UUID | None, list[UUID]] = {}
    for message_id, parent_id in rows:
        parents[message_id] = parent_id
        children.setdefault(parent_id, []).append(message_id)
    return _Tree(parents, children)
