"""Begin a reply: check what was asked, write the rows, and hand back the job. One short synchronous call each.

The assistant's row exists, pending, before any model is called.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from django.contrib.sessions.models import Session
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.models import ApiKey, User
from chat import limits
from chat.errors import BusyError, ForbiddenError, InvalidError, ModelUnavailableError, NotFoundError
from chat.events import (
    ConversationCreated,
    ConversationUpdated,
    MessageCreate,
    MessageCreated,
    ReplyContinue,
    ReplyCreate,
    ReplyStarted,
    ServerEvent,
)
from chat.models import RUNNING, Conversation, Message, RequestReceipt
from chat.replies.prompt import reply_options, system_prompt_of, take_context
from chat.selectors import get_conversation, with_opinions
from chat.serializers import conversation_to_dict, message_to_dict
from chat.services import title_from
from chat.text import check_text
from config.app_settings import get_settings
from models_hub import breaker
from models_hub.base import ModelHubError, PromptMessage, ReplyOptions, Role, Usage
from models_hub.models import ModelVersion
from models_hub.selectors import resolve_target
from models_hub.targets import CHAT, ModelTarget

REMEMBER_REQUESTS = timedelta(minutes=10)
logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Asker:
    """Who speaks: a person, through a browser he is signed in to or with one of his API keys."""

    user_id: int
    api_key_id: int | None = None
    session_key: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class ReplyJob:
    """All that producing a reply needs; holds no ORM object."""

    message_id: UUID
    conversation_id: UUID
    owner_token: UUID
    targets: tuple[ModelTarget, ...]
    prompt: tuple[PromptMessage, ...]
    options: ReplyOptions
    left_out: int
    content: str = ""
    reasoning: str = ""
    last_sequence_number: int = 0
    used: Usage | None = None  # by an earlier run that this one continues


@dataclass(frozen=True, kw_only=True)
class Started:
    """What to tell. Without a job the request had been answered before."""

    conversation: dict[str, Any]
    is_new_conversation: bool
    message: dict[str, Any] | None
    reply: dict[str, Any]
    job: ReplyJob | None

    @property
    def sequence_number(self) -> int:
        """The last delta that whoever asked has seen already: a continued reply's numbers go on."""
        return self.job.last_sequence_number if self.job else 0

    def events(self, request_id: str | None) -> list[ServerEvent]:
        """What the asking socket is told, in the contract's order."""
        created = ConversationCreated(conversation=self.conversation, request_id=request_id)
        return [*([created] if self.is_new_conversation else []), *self.message_events(request_id)]

    def news(self, *, origin: str) -> dict[str, Any]:
        """What the person's other sockets are told; those that follow the conversation show the reply."""
        kind = ConversationCreated if self.is_new_conversation else ConversationUpdated
        return {
            "type": "reply.begun",
            "origin": origin,
            "after": self.sequence_number,
            "reply": self.reply,
            "conversation": kind(conversation=self.conversation).to_dict(),
            "frames": [event.to_dict() for event in self.message_events(None)],
        }

    def message_events(self, request_id: str | None) -> list[ServerEvent]:
        conversation_id = self.conversation["id"]
        started = ReplyStarted(message=self.reply, conversation_id=conversation_id, request_id=request_id)
        if self.message is None:
            return [started]
        return [MessageCreated(message=self.message, request_id=request_id), started]


def get_asker(asker: Asker) -> User:
    """The person, checked anew at every request: access may have ended under an open socket that was not told."""
    user = User.objects.filter(id=asker.user_id, is_active=True).first()
    if user is None or not _still_holds(asker):
        raise ForbiddenError("Your access has ended. Sign in again.")
    return user


def _still_holds(asker: Asker) -> bool:
    """Whether the key is not revoked, the sign-in neither ended nor too old."""
    if asker.api_key_id is not None:
        return ApiKey.objects.usable().filter(id=asker.api_key_id).exists()
    sessions = Session.objects.filter(session_key=asker.session_key, expire_date__gt=timezone.now())
    return not asker.session_key or sessions.exists()


def create_message(asker: Asker, frame: MessageCreate) -> Started:
    """A message and the pending reply to it."""
    check_text(frame.content, limit=get_settings().max_message_chars, field="content")
    user = get_asker(asker)
    if repeated := _find_receipt(user, frame.request_id):
        return repeated
    limits.count_message(user.id)
    try:
        with transaction.atomic():
            return _create_message(user, frame)
    except IntegrityError:
        # The same request, sent twice at the same moment: the other one has just been kept.
        if repeated := _find_receipt(user, frame.request_id):
            return repeated
        raise


def create_reply(asker: Asker, frame: ReplyCreate) -> Started:
    """Another reply to a message: a sibling, which becomes the current leaf."""
    user = get_asker(asker)
    conversation = get_conversation(frame.conversation_id, user=user)
    parent = _message_in(conversation, frame.parent_id, field="parent_id")
    if parent.role != Role.USER:
        raise InvalidError("parent_id must be one of your own messages: a reply answers a message.")
    slug = conversation.model if frame.model is None else frame.model
    targets = _resolve(slug, user)
    limits.count_message(user.id)
    with transaction.atomic():
        conversation.model = slug
        return _add_reply(conversation, parent, targets, frame.options)


def continue_reply(asker: Asker, frame: ReplyContinue) -> Started:
    """Go on with a reply that was cut short: the same message, and its numbers go on."""
    user = get_asker(asker)
    reply = get_reply(user, frame.message_id)
    if reply.status in RUNNING:
        raise InvalidError("This reply is still being written: there is nothing to continue yet.")
    if not reply.can_continue:
        raise InvalidError("Only a reply that was cut short can be continued.")
    conversation, parent = reply.conversation, reply.parent
    if parent is None:
        raise InvalidError("This reply answers no message.")
    targets = _resolve_writer(reply, user)
    limits.count_message(user.id)
    token, now = uuid.uuid4(), timezone.now()
    moved = Message.objects.filter(id=reply.id, status=reply.status).update(
        status=Message.Status.PENDING,
        version=targets[0].version_id,
        owner_token=token,
        claimed_at=now,
        cancel_requested_at=None,
        ended_at=None,
        finish_reason="",
        error_code="",
        error_message="",
        error_retryable=False,
        html="",
    )
    if not moved:
        raise InvalidError("This reply is being continued already.")
    reply.refresh_from_db()
    job = _job(reply, conversation, parent, targets)
    if reply.content:
        job = replace(job, prompt=(*job.prompt, PromptMessage(Role.ASSISTANT, reply.content)))
    return Started(
        conversation=conversation_to_dict(conversation),
        is_new_conversation=False,
        message=None,
        reply=message_to_dict(reply),
        job=job,
    )


def get_reply(user: User, message_id: UUID) -> Message:
    """A reply of this person's. Raises NotFoundError for others', InvalidError for a message that is no reply."""
    rows = Message.objects.select_related("conversation", "parent", "version__model")
    reply = rows.filter(id=message_id, conversation__owner=user, conversation__deleted_at=None).first()
    if reply is None:
        raise NotFoundError("There is no such message.")
    if reply.role != Role.ASSISTANT:
        raise InvalidError("message_id must be a reply.")
    return reply


def _create_message(user: User, frame: MessageCreate) -> Started:
    conversation, is_new = _open_conversation(user, frame)
    parent = _parent_of(conversation, frame)
    if parent and parent.status in RUNNING:
        raise BusyError("The reply above is still being written. Stop it, or wait for its end.")
    if frame.model is not None:
        conversation.model = frame.model
    targets = _resolve(conversation.model, user)
    message = Message(
        conversation=conversation,
        parent=parent,
        depth=parent.depth + 1 if parent else 0,
        role=Role.USER,
        content=frame.content,
    )
    started = _add_reply(conversation, message, targets, frame.options, is_new_message=True, is_new=is_new)
    if frame.request_id:
        _keep_receipt(user, frame.request_id, message, started)
    return started


def _keep_receipt(user: User, request_id: str, message: Message, started: Started) -> None:
    outdated = timezone.now() - REMEMBER_REQUESTS
    RequestReceipt.objects.filter(owner=user, request_id=request_id, created_at__lt=outdated).delete()
    RequestReceipt.objects.create(owner=user, request_id=request_id, message=message, reply_id=started.reply["id"])


def _open_conversation(user: User, frame: MessageCreate) -> tuple[Conversation, bool]:
    if frame.conversation_id is not None:
        return get_conversation(frame.conversation_id, user=user), False
    if frame.parent_id or frame.edit_of:
        raise InvalidError("parent_id and edit_of need a conversation_id.")
    options = {name: value for name, value in frame.options.items() if name != "system_prompt"}
    conversation = Conversation(
        owner=user,
        title=title_from(frame.content),
        model=user.default_model or get_settings().default_model,
        system_prompt=frame.options.get("system_prompt", ""),
        options=options,
    )
    return conversation, True


def _parent_of(conversation: Conversation, frame: MessageCreate) -> Message | None:
    if frame.edit_of is not None:
        edited = _message_in(conversation, frame.edit_of, field="edit_of")
        if edited.role != Role.USER:
            raise InvalidError("edit_of must be one of your own messages.")
        return edited.parent
    if frame.parent_id is not None:
        return _message_in(conversation, frame.parent_id, field="parent_id")
    return conversation.current_leaf


def _message_in(conversation: Conversation, message_id: UUID, *, field: str) -> Message:
    rows = Message.objects.select_related("parent")
    message = rows.filter(id=message_id, conversation=conversation).first()
    if message is None:
        raise NotFoundError(f"{field} names no message of this conversation.")
    return message


def _resolve(slug: str, user: User) -> tuple[ModelTarget, ...]:
    """The model that was asked for and its fallback. Raises ModelUnavailableError when neither can be tried."""
    try:
        target = resolve_target(slug, user=user)
    except ModelHubError as error:
        raise ModelUnavailableError(error.message) from error
    targets = (target, *_fallback(target, user))
    if len(targets) == 1 and breaker.is_open(target.slug):
        raise ModelUnavailableError(f"{target.name} does not answer at the moment. Try again soon, or pick another.")
    return targets


def _resolve_writer(reply: Message, user: User) -> tuple[ModelTarget, ...]:
    """The version that wrote the beginning; where it cannot be asked any more, what its model answers with today."""
    if reply.version is not None:
        try:
            return _resolve(str(reply.version), user)
        except ModelUnavailableError:
            logger.info("continued_by_another_version", message_id=str(reply.id), version=str(reply.version))
    return _resolve(reply.model or reply.conversation.model, user)


def _fallback(target: ModelTarget, user: User) -> tuple[ModelTarget, ...]:
    if not target.fallback_slug:
        return ()
    try:
        return (resolve_target(target.fallback_slug, user=user),)
    except ModelHubError:
        return ()


def _add_reply(
    conversation: Conversation,
    parent: Message,
    targets: Sequence[ModelTarget],
    options: dict[str, Any],
    *,
    is_new_message: bool = False,
    is_new: bool = False,
) -> Started:
    """Write the pending reply, and with it the message and the conversation where they are new."""
    now = timezone.now()
    reply = Message(
        conversation=conversation,
        parent=parent,
        depth=parent.depth + 1,
        role=Role.ASSISTANT,
        status=Message.Status.PENDING,
        model=targets[0].slug,
        version=ModelVersion(id=targets[0].version_id, number=targets[0].version_number),
        options=options,
        owner_token=uuid.uuid4(),
        claimed_at=now,
    )
    conversation.current_leaf, conversation.updated_at = reply, now
    if is_new:  # its leaf follows within the transaction: the constraint is checked at its end
        conversation.save(force_insert=True)
    job = _job(reply, conversation, parent, targets)
    reply.messages_left_out = job.left_out
    Message.objects.bulk_create([parent, reply] if is_new_message else [reply])
    if not is_new:
        conversation.save(update_fields=["current_leaf", "updated_at", "model"])
    return Started(
        conversation=conversation_to_dict(conversation),
        is_new_conversation=is_new,
        message=message_to_dict(parent) if is_new_message else None,
        reply=message_to_dict(reply),
        job=job,
    )


def _job(reply: Message, conversation: Conversation, parent: Message, targets: Sequence[ModelTarget]) -> ReplyJob:
    context, left_out = take_context(parent, get_settings().context_messages)
    reads_context = targets[0].task == CHAT
    prompt = [PromptMessage(Role(item.role), item.content) for item in context]
    if system_prompt := system_prompt_of(conversation, reply.options):
        prompt.insert(0, PromptMessage(Role.SYSTEM, system_prompt))
    return ReplyJob(
        message_id=reply.id,
        conversation_id=conversation.id,
        owner_token=reply.owner_token,
        targets=tuple(targets),
        prompt=tuple(prompt),
        options=reply_options(targets[0].default_options, conversation.options, reply.options),
        left_out=left_out if reads_context else 0,
        content=reply.content,
        reasoning=reply.reasoning,
        last_sequence_number=reply.last_sequence_number,
        used=_used(reply),
    )


def _used(reply: Message) -> Usage | None:
    if reply.prompt_tokens is None or reply.completion_tokens is None:
        return None
    return Usage(reply.prompt_tokens, reply.completion_tokens)


def _find_receipt(user: User, request_id: str | None) -> Started | None:
    if not request_id:
        return None
    receipt = (
        RequestReceipt.objects.select_related("message__conversation")
        .filter(owner=user, request_id=request_id, created_at__gte=timezone.now() - REMEMBER_REQUESTS)
        .first()
    )
    if receipt is None:
        return None
    return Started(
        conversation=conversation_to_dict(receipt.message.conversation),
        is_new_conversation=False,
        message=message_to_dict(receipt.message),
        reply=message_to_dict(with_opinions(Message.objects.all()).get(id=receipt.reply_id)),
        job=None,
    )
