"""A reply's row: every move of its status is a compare-and-set on status and owner token. Synchronous."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from chat.models import RUNNING, Conversation, Message
from chat.replies.running import Progress
from chat.selectors import with_opinions
from chat.serializers import message_to_dict
from chat.text import storable
from models_hub.base import FinishReason, ModelHubError, Usage
from models_hub.targets import ModelTarget

LARGEST_COUNT = 2**31 - 1
INTERRUPTED_CODE = "interrupted"
INTERRUPTED_MESSAGE = "The server stopped while this reply was being written. What had arrived is kept."


@dataclass(kw_only=True)
class ReplyEnd:
    """How a reply ended, and all that is known of it then."""

    status: str
    finish_reason: FinishReason | None = None
    content: str
    answered_by: ModelTarget | None = None
    requested_model: str = ""
    reasoning: str = ""
    html: str = ""
    labels: list[dict[str, Any]] | None = None
    usage: Usage | None = None
    first_token_ms: int | None = None
    total_ms: int | None = None
    last_sequence_number: int = 0
    messages_left_out: int = 0
    error_code: str = ""
    error_message: str = ""
    error_retryable: bool = False

    def set_error(self, error: ModelHubError) -> None:
        self.status, self.finish_reason = Message.Status.FAILED, FinishReason.ERROR
        self.error_code, self.error_message, self.error_retryable = error.code, storable(error.message), error.retryable

    def set_interrupted(self) -> None:
        """Our own death, told as such."""
        self.status, self.finish_reason = Message.Status.INTERRUPTED, FinishReason.ERROR
        self.error_code, self.error_message, self.error_retryable = INTERRUPTED_CODE, INTERRUPTED_MESSAGE, True

    def set_stopped(self) -> None:
        self.status, self.finish_reason = Message.Status.STOPPED, FinishReason.CANCELLED

    def columns(self) -> dict[str, Any]:
        apart = {"usage", "finish_reason", "answered_by", "requested_model"}
        values = {name: value for name, value in vars(self).items() if name not in apart}
        values["finish_reason"] = self.finish_reason or ""
        usage = self.usage if self.usage and _is_storable(self.usage) else None
        if usage:  # else what an earlier run used, which this one continues, stays
            values |= {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
        if self.requested_model and self.answered_by:
            values |= {"model": self.answered_by.slug, "version_id": self.answered_by.version_id}
            values["requested_model"] = self.requested_model
        return values | {"ended_at": timezone.now()}


def _is_storable(usage: Usage) -> bool:
    """A provider may count whatever it likes; a number the column refuses must not keep the reply from ending."""
    return all(0 <= count <= LARGEST_COUNT for count in (usage.prompt_tokens, usage.completion_tokens))


@dataclass
class Materialised:
    """What the once-a-second transaction found out about the replies it was told of."""

    cancelled: set[UUID] = field(default_factory=set)
    lost: set[UUID] = field(default_factory=set)


def materialise(progress: Sequence[Progress], owned: Iterable[tuple[UUID, UUID]]) -> Materialised:
    """Keep the text so far of all running replies in one transaction, and see which were stopped or taken away."""
    owners = dict(owned)
    with transaction.atomic():
        for item in progress:
            Message.objects.filter(id=item.message_id, owner_token=item.owner_token, status__in=RUNNING).update(
                status=Message.Status.STREAMING,
                content=item.content,
                reasoning=item.reasoning,
                last_sequence_number=item.last_sequence_number,
            )
    found = Materialised(lost=set(owners))
    rows = Message.objects.filter(id__in=owners, status__in=RUNNING)
    for message_id, token, cancelled_at in rows.values_list("id", "owner_token", "cancel_requested_at"):
        if token == owners[message_id]:
            found.lost.discard(message_id)
            if cancelled_at is not None:
                found.cancelled.add(message_id)
    return found


def end_reply(message_id: UUID, owner_token: UUID, end: ReplyEnd) -> dict[str, Any] | None:
    """The last move. Returns the message as the end frame shows it, or None when somebody else had ended it."""
    with transaction.atomic():
        row = Message.objects.filter(id=message_id, owner_token=owner_token, status__in=RUNNING)
        if not row.update(**end.columns()):
            return None
        message = with_opinions(Message.objects.all()).get(id=message_id)
        Conversation.objects.filter(id=message.conversation_id).update(updated_at=timezone.now())
    return message_to_dict(message)


def request_cancel(message_id: UUID) -> bool:
    """The stored marker that stops a reply wherever it runs. False when it has ended already."""
    return Message.objects.filter(id=message_id, status__in=RUNNING).update(cancel_requested_at=timezone.now()) == 1


def get_message_dict(message_id: UUID) -> dict[str, Any] | None:
    message = with_opinions(Message.objects.filter(id=message_id)).first()
    return message and message_to_dict(message)


def list_ended(message_ids: Iterable[UUID], *, for_seconds: float) -> list[Message]:
    """Those of them that ended at least so long ago."""
    limit = timezone.now() - timedelta(seconds=for_seconds)
    rows = with_opinions(Message.objects.filter(id__in=message_ids, ended_at__lt=limit))
    return list(rows.exclude(status__in=RUNNING))


def is_running(message_id: UUID) -> bool:
    return Message.objects.filter(id=message_id, status__in=RUNNING).exists()


def list_running_older_than(seconds: float) -> list[Message]:
    """Replies claimed long enough ago that their heartbeat must have been heard."""
    limit = timezone.now() - timedelta(seconds=seconds)
    rows = Message.objects.filter(status__in=RUNNING, claimed_at__lt=limit)
    return list(
        rows.only(
            "id",
            "conversation_id",
            "owner_token",
            "content",
            "reasoning",
            "last_sequence_number",
            "messages_left_out",
            "status",
            "cancel_requested_at",
        )
    )
