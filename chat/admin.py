"""Conversations in the admin: whose, how many, with which model. Never what was said, the title included."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import display

from accounts.admin import OnlyAdmins
from chat.models import Conversation, Message
from models_hub.admin import ReadOnly


@admin.register(Conversation)
class ConversationAdmin(ReadOnly, OnlyAdmins, ModelAdmin):
    list_display = ("id", "owner", "model", "message_count", "created_at", "updated_at", "is_deleted")
    list_filter = (("deleted_at", admin.EmptyFieldListFilter), "model")
    list_select_related = ("owner",)
    search_fields = ("id", "owner__username", "owner__email")
    search_help_text = "By id or owner. What was said is not searched."
    date_hierarchy = "updated_at"
    ordering = ("-updated_at",)
    fields = ("id", "owner", "model", "message_count", "created_at", "updated_at", "deleted_at")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conversation]:
        # A subquery counts the rows of one page only; a join would group every message there is.
        messages = Message.objects.filter(conversation=OuterRef("pk")).order_by().values("conversation")
        count = Subquery(messages.annotate(total=Count("pk")).values("total"))
        rows = super().get_queryset(request).defer("title", "system_prompt", "options")
        return rows.annotate(total_messages=Coalesce(count, 0))

    @display(description="messages", ordering="total_messages")
    def message_count(self, conversation: Conversation) -> int:
        return conversation.total_messages

    @display(description="in the bin", boolean=True)
    def is_deleted(self, conversation: Conversation) -> bool:
        return conversation.deleted_at is not None
