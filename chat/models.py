"""Conversations and their messages, which form a tree: an edit or another answer is a sibling; nothing is lost."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.utils import timezone

from models_hub.base import FinishReason, Role


class Conversation(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="conversations")
    title = models.CharField(max_length=200, blank=True)
    model = models.CharField(max_length=200, help_text="Slug of the model the next message goes to.")
    system_prompt = models.TextField(blank=True)
    options = models.JSONField(default=dict, blank=True)
    current_leaf = models.ForeignKey("Message", on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    pinned_at = models.DateTimeField(null=True, blank=True)
    is_excluded_from_training = models.BooleanField(default=False, help_text="Whatever its owner has agreed to.")
    deleted_at = models.DateTimeField(null=True, blank=True, help_text="In the bin; purged later, until then undone.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-updated_at"]
        indexes = [
            models.Index(fields=["owner", "deleted_at", "-updated_at", "id"], name="chat_conversation_list"),
        ]

    def __str__(self) -> str:
        return str(self.id)


class Message(models.Model):
    """A node of the tree. A reply is the assistant message being produced: `status` moves only by compare-and-set."""

    class Status(models.TextChoices):
        PENDING = "pending"
        STREAMING = "streaming"
        COMPLETE = "complete"
        STOPPED = "stopped"
        FAILED = "failed"
        INTERRUPTED = "interrupted"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="messages")
    parent = models.ForeignKey("self", on_delete=models.CASCADE, null=True, blank=True, related_name="children")
    depth = models.PositiveIntegerField(default=0, help_text="How many messages come before it on its branch.")
    role = models.CharField(max_length=10, choices=[(role.value, role.value) for role in Role])
    content = models.TextField(blank=True)
    status = models.CharField(max_length=12, choices=Status, default=Status.COMPLETE)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    # What follows belongs to replies only.
    reasoning = models.TextField(blank=True)
    html = models.TextField(blank=True, help_text="The finished content as safe HTML.")
    labels = models.JSONField(null=True, blank=True)
    model = models.CharField(max_length=200, blank=True, help_text="Slug of the model that wrote it.")
    version = models.ForeignKey(
        "models_hub.ModelVersion", on_delete=models.PROTECT, null=True, blank=True, related_name="replies"
    )
    requested_model = models.CharField(max_length=200, blank=True, help_text="Set when a fallback answered instead.")
    options = models.JSONField(default=dict, blank=True)
    finish_reason = models.CharField(
        max_length=16, blank=True, choices=[(reason.value, reason.value) for reason in FinishReason]
    )
    prompt_tokens = models.PositiveIntegerField(null=True, blank=True)
    completion_tokens = models.PositiveIntegerField(null=True, blank=True)
    first_token_ms = models.PositiveIntegerField(null=True, blank=True)
    total_ms = models.PositiveIntegerField(null=True, blank=True)
    messages_left_out = models.PositiveIntegerField(default=0, help_text="How many earlier messages did not fit.")
    last_sequence_number = models.PositiveIntegerField(default=0, help_text="The last delta the stored text covers.")
    error_code = models.CharField(max_length=50, blank=True)
    error_message = models.TextField(blank=True)
    error_retryable = models.BooleanField(default=False)
    owner_token = models.UUIDField(null=True, blank=True, help_text="Who may move the status on.")
    claimed_at = models.DateTimeField(null=True, blank=True, help_text="When the owner took it.")
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["created_at"]
        indexes = [
            models.Index(fields=["conversation", "created_at"], name="chat_message_conversation"),
            models.Index(
                fields=["status"],
                name="chat_message_running",
                condition=models.Q(status__in=["pending", "streaming"]),
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def is_running(self) -> bool:
        return self.status in RUNNING

    @property
    def can_continue(self) -> bool:
        """Whether it is a reply that was cut short."""
        if self.status == Message.Status.FAILED:
            return bool(self.content)
        was_cut = self.status in (Message.Status.INTERRUPTED, Message.Status.STOPPED)
        return was_cut or self.finish_reason == FinishReason.LENGTH


class Feedback(models.Model):
    """What the conversation's owner thinks of a reply. At most one a reply; changed by `chat.feedback` only."""

    class Rating(models.IntegerChoices):
        GOOD = 1, "Good"
        BAD = -1, "Bad"

    message = models.OneToOneField(Message, on_delete=models.CASCADE, related_name="feedback")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="feedback")
    rating = models.SmallIntegerField(choices=Rating)
    comment = models.TextField(blank=True)
    tags = models.JSONField(default=list, blank=True, help_text="Of `chat.feedback.TAGS`.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name_plural = "feedback"
        indexes = [models.Index(fields=["rating", "updated_at"], name="chat_feedback_rating")]

    def __str__(self) -> str:
        return f"{self.rating:+d}"


class Correction(models.Model):
    """The answer a person would have wanted. The original stays what it is; this stands beside it."""

    message = models.OneToOneField(Message, on_delete=models.CASCADE, related_name="correction")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="corrections")
    content = models.TextField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return f"correction of {self.message_id}"


class Choice(models.Model):
    """Which of several answers to one question is the best. The question is the parent of all of them."""

    question = models.OneToOneField(Message, on_delete=models.CASCADE, related_name="choice")
    chosen = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="choices")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return f"{self.chosen_id} is the best"


class RequestReceipt(models.Model):
    """What a `request_id` created: the same request sent again after a reconnect creates nothing."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    request_id = models.CharField(max_length=64)
    message = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="+")
    reply = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "request_id"], name="chat_request_receipt_unique")]
        indexes = [models.Index(fields=["created_at"], name="chat_request_receipt_age")]

    def __str__(self) -> str:
        return self.request_id


RUNNING = (Message.Status.PENDING, Message.Status.STREAMING)
ENDED = (Message.Status.COMPLETE, Message.Status.STOPPED, Message.Status.FAILED, Message.Status.INTERRUPTED)
