"""What the owner of a conversation thinks of a reply: rated, corrected, chosen among several. Told to all his sockets.

The message is one that `selectors.get_message` found for this person: whoever may read it may judge it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.utils import timezone

from chat.broadcast import announce
from chat.errors import BusyError, InvalidError
from chat.events import MessageFeedback
from chat.models import Choice, Correction, Feedback, Message
from chat.selectors import with_opinions
from chat.serializers import opinions_to_dict
from chat.text import check_text
from config.app_settings import get_settings
from models_hub.base import Role

COMMENT_LIMIT = 2000
TAGS = {
    "wrong": "Not true",
    "incomplete": "Something is missing",
    "off_topic": "Did not answer the question",
    "instructions": "Did not follow my instructions",
    "too_long": "Too long",
    "too_short": "Too short",
    "style": "Wrong tone or style",
    "language": "Wrong language",
    "harmful": "Harmful or unsafe",
}


def rate(message: Message, *, rating: int, comment: str = "", tags: Iterable[str] = ()) -> Message:
    """Replaces what was said of this reply before. Raises InvalidError, TooLongError, BusyError (still running)."""
    _require_ended_reply(message)
    values = {
        "rating": _check_rating(rating),
        "comment": check_text(comment, limit=COMMENT_LIMIT, field="comment", required=False).strip(),
        "tags": _check_tags(tags),
    }
    with transaction.atomic():
        _keep(Feedback, message, values)
        return _tell(message)


def unrate(message: Message) -> Message:
    """Take the rating back, with its comment; nothing happens where there is none."""
    return _remove(Feedback, message)


def correct(message: Message, content: str) -> Message:
    """Keep the answer that would have been right, beside the original.

    Raises InvalidError, TooLongError, BusyError (still running).
    """
    _require_ended_reply(message)
    if message.labels is not None:
        raise InvalidError("A classifier's answer is a label, not a text: rate it instead of correcting it.")
    check_text(content, limit=get_settings().max_message_chars, field="content")
    if content.strip() == message.content.strip():
        raise InvalidError("The correction says the same as the answer. Change something in it first.")
    with transaction.atomic():
        _keep(Correction, message, {"content": content})
        return _tell(message)


def remove_correction(message: Message) -> Message:
    return _remove(Correction, message)


def choose(message: Message) -> Message:
    """Call this the best of the answers to its question. Raises InvalidError, BusyError (still running)."""
    _require_ended_reply(message)
    if (
        message.parent_id is None
        or not Message.objects.filter(parent=message.parent_id).exclude(id=message.id).exists()
    ):
        raise InvalidError("This is the only answer to its question: ask for another one first.")
    owner = message.conversation.owner_id
    with transaction.atomic():
        before = Choice.objects.filter(question=message.parent_id).values_list("chosen", flat=True).first()
        values = {"chosen": message, "user_id": owner}
        Choice.objects.update_or_create(question_id=message.parent_id, defaults=values)
        if before not in (None, message.id):
            _tell(Message.objects.select_related("conversation").get(id=before))
        return _tell(message)


def unchoose(message: Message) -> Message:
    with transaction.atomic():
        Choice.objects.filter(chosen=message).delete()
        return _tell(message)


def _require_ended_reply(message: Message) -> None:
    if message.role != Role.ASSISTANT:
        raise InvalidError("Only replies are rated, corrected or chosen, not your own messages.")
    if message.is_running:
        raise BusyError("This reply is still being written. Wait for its end, or stop it first.")


def _check_rating(rating: Any) -> int:
    if isinstance(rating, bool) or rating not in Feedback.Rating.values:
        raise InvalidError("rating must be 1 (good) or -1 (bad).")
    return rating


def _check_tags(tags: Iterable[str]) -> list[str]:
    """Each once, in the order of TAGS."""
    chosen = set(tags)
    if unknown := chosen - TAGS.keys():
        raise InvalidError(f"There is no tag {min(unknown)[:50]!r}. The tags are {', '.join(TAGS)}.")
    return [tag for tag in TAGS if tag in chosen]


def _keep(model: type[Feedback] | type[Correction], message: Message, values: dict[str, Any]) -> None:
    owner = message.conversation.owner_id
    model.objects.update_or_create(message=message, defaults=values | {"user_id": owner, "updated_at": timezone.now()})


def _remove(model: type[Feedback] | type[Correction], message: Message) -> Message:
    with transaction.atomic():
        model.objects.filter(message=message).delete()
        return _tell(message)


def _tell(message: Message) -> Message:
    """The message as it is judged now, once the change is kept on every page that shows it."""
    judged = with_opinions(Message.objects.select_related("conversation")).get(id=message.id)
    announce(
        judged.conversation.owner_id,
        MessageFeedback(
            message_id=str(judged.id), conversation_id=str(judged.conversation_id), **opinions_to_dict(judged)
        ),
    )
    return judged
