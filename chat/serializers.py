"""Conversations and messages as the wire, the API and the pages show them. The shapes are part of the contract."""

from __future__ import annotations

from typing import Any

from chat import markdown
from chat.models import ENDED, Conversation, Message
from models_hub.base import Role


def conversation_to_dict(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": str(conversation.id),
        "title": conversation.title,
        "model": conversation.model,
        "system_prompt": conversation.system_prompt,
        "options": conversation.options,
        "current_leaf_id": str(conversation.current_leaf_id) if conversation.current_leaf_id else None,
        "pinned": conversation.pinned_at is not None,
        "is_excluded_from_training": conversation.is_excluded_from_training,
        "created_at": conversation.created_at.isoformat(),
        "updated_at": conversation.updated_at.isoformat(),
    }


def message_to_dict(message: Message) -> dict[str, Any]:
    """A message; a reply also tells what wrote it, and, once it has ended, how, and what its owner thinks of it.

    Load replies with `selectors.with_opinions`: what is read here then comes with the message's own query.
    """
    data = {
        "id": str(message.id),
        "conversation_id": str(message.conversation_id),
        "parent_id": str(message.parent_id) if message.parent_id else None,
        "role": message.role,
        "content": message.content,
        "status": message.status,
        "model": message.model or None,
        "created_at": message.created_at.isoformat(),
    }
    return data | _reply_fields(message) if message.role == Role.ASSISTANT else data


def _reply_fields(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "version": message.version.number if message.version else None,
        "requested_model": message.requested_model or None,
        "reasoning": message.reasoning,
        "messages_left_out": message.messages_left_out,
        "last_sequence_number": message.last_sequence_number,
    }
    if message.labels is not None:
        fields["labels"] = message.labels
    # A reply that runs is not judged, and one that has just been made is not asked about: a send costs no query more.
    if message.status not in ENDED:
        return fields | {"feedback": None, "correction": None, "is_chosen": False}
    return fields | opinions_to_dict(message) | _end_fields(message)


def opinions_to_dict(message: Message) -> dict[str, Any]:
    """What the owner thinks of a reply loaded with `selectors.with_opinions`."""
    feedback, correction = getattr(message, "feedback", None), getattr(message, "correction", None)
    return {
        "feedback": feedback and {"rating": feedback.rating, "comment": feedback.comment, "tags": feedback.tags},
        "correction": correction and {"content": correction.content, "html": markdown.render(correction.content)},
        "is_chosen": message.is_chosen,
    }


def _end_fields(message: Message) -> dict[str, Any]:
    usage = {"prompt_tokens": message.prompt_tokens, "completion_tokens": message.completion_tokens}
    return {
        "html": message.html,
        "finish_reason": message.finish_reason or None,
        "usage": usage if message.completion_tokens is not None else None,
        "timings": {"first_token_ms": message.first_token_ms, "total_ms": message.total_ms},
        "error": _error(message),
    }


def _error(message: Message) -> dict[str, Any] | None:
    if not message.error_code:
        return None
    return {"code": message.error_code, "message": message.error_message, "retryable": message.error_retryable}
