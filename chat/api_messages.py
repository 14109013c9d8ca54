"""`/api/messages`: what I think of the replies in my conversations. `POST` does the same as `PUT`.

Every call answers with what is thought of the reply now.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Router, Schema
from pydantic import Field

from chat import feedback as services
from chat.api import Correction, Feedback
from chat.models import Message
from chat.selectors import get_message
from chat.serializers import opinions_to_dict
from config.api_schema import RequestSchema

router = Router()


class FeedbackChange(RequestSchema):
    rating: int = Field(strict=True, description="1: good, -1: bad.", examples=[1])
    comment: str = Field("", description=f"At most {services.COMMENT_LIMIT} characters.", examples=["Just right."])
    tags: list[str] = Field([], description=f"What it is about: {', '.join(services.TAGS)}.", examples=[["wrong"]])


class CorrectionChange(RequestSchema):
    content: str = Field(description="The answer you would have wanted.", examples=["The Nile, or the Amazon."])


class Opinions(Schema):
    message_id: UUID
    conversation_id: UUID
    feedback: Feedback | None
    correction: Correction | None
    is_chosen: bool = Field(description="Whether it was called the best of the answers to its question.")


@router.post("/{uuid:message_id}/feedback", response=Opinions, summary="Rate a reply", operation_id="post_feedback")
@router.put("/{uuid:message_id}/feedback", response=Opinions, summary="Rate a reply")
def rate(request: HttpRequest, message_id: UUID, change: FeedbackChange) -> dict[str, Any]:
    """Replaces what you said of it before."""
    return _answer(services.rate(get_message(message_id, user=request.auth), **change.dict()))


@router.delete("/{uuid:message_id}/feedback", response=Opinions, summary="Take a rating back")
def unrate(request: HttpRequest, message_id: UUID) -> dict[str, Any]:
    return _answer(services.unrate(get_message(message_id, user=request.auth)))


@router.post(
    "/{uuid:message_id}/correction", response=Opinions, summary="Correct a reply", operation_id="post_correction"
)
@router.put("/{uuid:message_id}/correction", response=Opinions, summary="Correct a reply")
def correct(request: HttpRequest, message_id: UUID, change: CorrectionChange) -> dict[str, Any]:
    """Kept beside the original, which stays as it was."""
    return _answer(services.correct(get_message(message_id, user=request.auth), change.content))


@router.delete("/{uuid:message_id}/correction", response=Opinions, summary="Remove a correction")
def remove_correction(request: HttpRequest, message_id: UUID) -> dict[str, Any]:
    return _answer(services.remove_correction(get_message(message_id, user=request.auth)))


@router.post(
    "/{uuid:message_id}/choice", response=Opinions, summary="Choose the best reply", operation_id="post_choice"
)
@router.put("/{uuid:message_id}/choice", response=Opinions, summary="Choose the best reply")
def choose(request: HttpRequest, message_id: UUID) -> dict[str, Any]:
    """The best of the answers to the same message; there is one at most."""
    return _answer(services.choose(get_message(message_id, user=request.auth)))


@router.delete("/{uuid:message_id}/choice", response=Opinions, summary="Take a choice back")
def unchoose(request: HttpRequest, message_id: UUID) -> dict[str, Any]:
    return _answer(services.unchoose(get_message(message_id, user=request.auth)))


def _answer(message: Message) -> dict[str, Any]:
    return {"message_id": message.id, "conversation_id": message.conversation_id, **opinions_to_dict(message)}
