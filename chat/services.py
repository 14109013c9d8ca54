"""Writes about a conversation as a whole: each in one transaction, and told to the owner's sockets once it is kept."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from chat.broadcast import announce
from chat.errors import InvalidError, ModelUnavailableError
from chat.events import ConversationDeleted, ConversationUpdated, parse_options
from chat.models import RUNNING, Conversation, Message
from chat.nudges import nudge_withdrawal
from chat.selectors import get_newest_leaf
from chat.serializers import conversation_to_dict
from chat.text import check_text
from config.app_settings import get_settings
from models_hub.base import ModelNotReadyError, UnknownModelError
from models_hub.selectors import resolve_target

TITLE_LIMIT = 200
MODEL_LIMIT = 200
# Titles made from the first words are shorter: a line in a sidebar.
FIRST_WORDS_LIMIT = 60
BIN_TIME = timedelta(days=30)
PURGE_BATCH = 50


def title_from(text: str) -> str:
    """The first words of the first message, as one line."""
    words = " ".join(text[: FIRST_WORDS_LIMIT * 10].split())
    if len(words) <= FIRST_WORDS_LIMIT:
        return words
    cut = words[: FIRST_WORDS_LIMIT - 1]
    space = cut.rfind(" ")
    return f"{(cut[:space] if space > FIRST_WORDS_LIMIT // 2 else cut).rstrip(' ,;:.-')}…"


def change_conversation(
    conversation: Conversation,
    *,
    title: str | None = None,
    pinned: bool | None = None,
    is_excluded_from_training: bool | None = None,
    **settings: Any,
) -> Conversation:
    """Title, pin, whether it may be trained on; what the next message goes with (`model`, `system_prompt`, `options`).

    None leaves a value as it is. All or none, with one announcement. Raises InvalidError, TooLongError, and
    ModelUnavailableError when the owner may not use the model.
    """
    changes = _checked_settings(conversation, **settings)
    if title is not None:
        changes["title"] = " ".join(check_text(title, limit=TITLE_LIMIT, field="title").split())
    if pinned is not None and pinned != (conversation.pinned_at is not None):
        changes["pinned_at"] = timezone.now() if pinned else None
    if is_excluded_from_training not in (None, conversation.is_excluded_from_training):
        changes["is_excluded_from_training"] = is_excluded_from_training
    with transaction.atomic():
        if changes.get("is_excluded_from_training"):
            nudge_withdrawal()
        return _update(conversation, **changes)


def _checked_settings(
    conversation: Conversation,
    *,
    model: str | None = None,
    system_prompt: str | None = None,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if model is not None:
        changes["model"] = _check_model(conversation, model)
    if system_prompt is not None:
        limit = get_settings().max_message_chars
        changes["system_prompt"] = check_text(system_prompt, limit=limit, field="system_prompt", required=False)
    if options is not None:
        if "system_prompt" in options:
            raise InvalidError("options of a conversation have no system_prompt: it is a field of its own.")
        changes["options"] = parse_options(options)
    return changes


def _check_model(conversation: Conversation, slug: str) -> str:
    """One that is not ready may be chosen all the same: it may be by the time of the next message."""
    try:
        resolve_target(check_text(slug, limit=MODEL_LIMIT, field="model"), user=conversation.owner)
    except UnknownModelError as error:
        raise ModelUnavailableError(error.message) from error
    except ModelNotReadyError:
        pass
    return slug


def select_leaf(conversation: Conversation, message: Message) -> Conversation:
    """Show the branch this message is on, down to its newest end. Raises NotFoundError for another's message."""
    return _update(conversation, current_leaf_id=get_newest_leaf(conversation, message.id))


def delete_conversation(conversation: Conversation) -> None:
    """Into the bin: not shown and not found any more, and until it is purged it can be restored.

    A reply that still runs in it is stopped, as if somebody had pressed Stop.
    """
    if conversation.deleted_at is not None:
        return
    with transaction.atomic():
        conversation.deleted_at = now = timezone.now()
        conversation.save(update_fields=["deleted_at"])
        conversation.messages.filter(status__in=RUNNING).update(cancel_requested_at=now)
        nudge_withdrawal()
        announce(conversation.owner_id, ConversationDeleted(conversation=conversation_to_dict(conversation)))


def restore_conversation(conversation: Conversation) -> Conversation:
    return _update(conversation, deleted_at=None)


def purge_deleted_conversations(older_than: timedelta = BIN_TIME) -> int:
    """End for good what has been in the bin for that long. In small transactions, so that a send never waits long."""
    purged = 0
    while ids := _purgeable_ids(older_than):
        for conversation_id in ids:
            purged += Conversation.objects.filter(id=conversation_id).exclude(deleted_at=None).delete()[0] > 0
    return purged


def _purgeable_ids(older_than: timedelta) -> list[UUID]:
    old = Conversation.objects.filter(deleted_at__lt=timezone.now() - older_than).order_by("deleted_at")
    return list(old.values_list("id", flat=True)[:PURGE_BATCH])


def _update(conversation: Conversation, **changes: Any) -> Conversation:
    """Write exactly these columns, and say so."""
    if not changes:
        return conversation
    with transaction.atomic():
        for name, value in changes.items():
            setattr(conversation, name, value)
        conversation.save(
            update_fields=[name.removesuffix("_id") if name == "current_leaf_id" else name for name in changes]
        )
        announce(conversation.owner_id, ConversationUpdated(conversation=conversation_to_dict(conversation)))
    return conversation
