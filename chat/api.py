"""`/api/conversations`: one's own conversations: list, search, read, change, delete and take back."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router, Schema, Status
from pydantic import Field

from chat import selectors, services
from chat.models import Message as MessageRow
from chat.search import SearchResult, search_conversations
from chat.serializers import conversation_to_dict, message_to_dict
from config.api_schema import RequestSchema

router = Router()

PAGE = Field(30, ge=1, le=selectors.MAX_PAGE_SIZE, description="How many at most.")
MESSAGES = Field(100, ge=1, le=selectors.MAX_WINDOW, description="How many messages at most.")


class SnippetPart(Schema):
    text: str
    is_hit: bool = Field(description="Whether this part is what was looked for.")


class Found(Schema):
    message_id: UUID | None = Field(description="The newest message with the words; null: found by its title.")
    snippet: list[SnippetPart]


class Conversation(Schema):
    id: UUID
    title: str
    model: str = Field(description="Slug of the model the next message goes to.")
    system_prompt: str
    options: dict[str, Any]
    current_leaf_id: UUID | None = Field(description="The last message of the branch being shown.")
    pinned: bool
    is_excluded_from_training: bool = Field(description="Nothing of it is trained on, whatever you have agreed to.")
    created_at: datetime
    updated_at: datetime
    found: Found | None = Field(None, description="Only in search results: where the words are.")


class ConversationList(Schema):
    items: list[Conversation]
    next_cursor: str | None = Field(description="Give it as `cursor` to get the next page; null: this is the last.")


class Label(Schema):
    label: str
    score: float


class Usage(Schema):
    prompt_tokens: int | None
    completion_tokens: int | None


class Timings(Schema):
    first_token_ms: int | None
    total_ms: int | None


class ReplyError(Schema):
    code: str
    message: str
    retryable: bool


class Feedback(Schema):
    rating: int = Field(description="1: good, -1: bad.")
    comment: str
    tags: list[str]


class Correction(Schema):
    content: str
    html: str


class Message(Schema):
    """What follows `sibling_ids` is there for replies only, from `html` on for ended ones."""

    id: UUID
    conversation_id: UUID
    parent_id: UUID | None
    role: str = Field(description="user or assistant.")
    content: str
    status: str = Field(description="pending, streaming, complete, stopped, failed or interrupted.")
    model: str | None
    created_at: datetime
    sibling_ids: list[UUID] = Field(description="The versions of this message, itself included, oldest first.")
    version: int | None = None
    requested_model: str | None = Field(None, description="Set when a fallback answered instead.")
    reasoning: str = ""
    messages_left_out: int = Field(0, description="How many earlier messages were not sent to the model.")
    last_sequence_number: int = 0
    labels: list[Label] | None = None
    feedback: Feedback | None = Field(None, description="What you thought of it.")
    correction: Correction | None = Field(None, description="The answer you would have wanted.")
    is_chosen: bool = Field(False, description="Whether you called it the best of the answers to its question.")
    html: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    error: ReplyError | None = None


class ConversationWithMessages(Conversation):
    messages: list[Message] = Field(description="The end of the branch, oldest message first.")
    before: UUID | None = Field(description="Give it as `before` to get the messages above; null: there are none.")


class ConversationQuery(Schema):
    q: str = Field("", description='Words, "phrases", title:word, model:slug, before:/after:YYYY-MM-DD. All must fit.')
    cursor: str | None = None
    limit: int = PAGE


class MessagesQuery(Schema):
    leaf: UUID | None = Field(None, description="The last message of the branch wanted. Default: the one being shown.")
    before: UUID | None = None
    limit: int = MESSAGES


class ConversationChange(RequestSchema):
    title: str | None = Field(None, examples=["Rivers"])
    pinned: bool | None = None
    is_excluded_from_training: bool | None = None
    model: str | None = Field(None, examples=["smollm2-135m-instruct"])
    system_prompt: str | None = None
    options: dict[str, Any] | None = Field(None, examples=[{"temperature": 0.2, "max_new_tokens": 200}])


@router.get("", response=ConversationList, exclude_unset=True, summary="List or search my conversations")
def list_conversations(request: HttpRequest, query: Query[ConversationQuery]) -> dict[str, Any]:
    """The pinned ones first, then by their last change. With `q`: those that fit, newest first."""
    if query.q.strip():
        page = search_conversations(user=request.auth, query=query.q, cursor=query.cursor, limit=query.limit)
        return {"items": [_result_to_dict(result) for result in page.results], "next_cursor": page.next_cursor}
    page = selectors.list_conversations(user=request.auth, cursor=query.cursor, limit=query.limit)
    return {"items": [conversation_to_dict(row) for row in page.items], "next_cursor": page.next_cursor}


@router.get(
    "/{uuid:conversation_id}",
    response=ConversationWithMessages,
    exclude_unset=True,
    summary="Read a conversation and its messages",
)
def get_conversation(request: HttpRequest, conversation_id: UUID, query: Query[MessagesQuery]) -> dict[str, Any]:
    conversation = selectors.get_conversation(conversation_id, user=request.auth)
    branch = selectors.get_branch(conversation, leaf=query.leaf, before=query.before, limit=query.limit)
    return conversation_to_dict(conversation) | {
        "messages": [_message_to_dict(message) for message in branch.messages],
        "before": branch.before,
    }


@router.patch(
    "/{uuid:conversation_id}",
    response=Conversation,
    exclude_unset=True,
    summary="Rename, pin, or change what comes next",
)
def change_conversation(request: HttpRequest, conversation_id: UUID, change: ConversationChange) -> dict[str, Any]:
    """Only the fields that are sent are changed, all of them or none."""
    conversation = selectors.get_conversation(conversation_id, user=request.auth)
    return conversation_to_dict(services.change_conversation(conversation, **change.dict(exclude_unset=True)))


@router.delete("/{uuid:conversation_id}", response={204: None}, summary="Delete a conversation")
def delete_conversation(request: HttpRequest, conversation_id: UUID) -> Status[None]:
    """It goes into the bin, from where it can be restored for 30 days."""
    services.delete_conversation(selectors.get_conversation(conversation_id, user=request.auth))
    return Status(204, None)


@router.post(
    "/{uuid:conversation_id}/restore", response=Conversation, exclude_unset=True, summary="Take a deletion back"
)
def restore_conversation(request: HttpRequest, conversation_id: UUID) -> dict[str, Any]:
    conversation = selectors.get_deleted_conversation(conversation_id, user=request.auth)
    return conversation_to_dict(services.restore_conversation(conversation))


def _message_to_dict(message: MessageRow) -> dict[str, Any]:
    return message_to_dict(message) | {"sibling_ids": message.sibling_ids}


def _result_to_dict(result: SearchResult) -> dict[str, Any]:
    snippet = [{"text": part.text, "is_hit": part.is_hit} for part in result.snippet]
    found = {"message_id": result.message.id if result.message else None, "snippet": snippet}
    return conversation_to_dict(result.conversation) | {"found": found}
