"""`/api/models`: the models a person may use, their versions, and for admins where an alias points."""

from __future__ import annotations

from datetime import datetime

from django.http import HttpRequest
from ninja import Router, Schema
from pydantic import Field

from chat.errors import ForbiddenError, InvalidError, NotFoundError
from config.api_schema import RequestSchema
from models_hub import selectors, services
from models_hub.models import ModelVersion
from models_hub.services import AliasMoveError
from models_hub.targets import ModelCard

router = Router()


class Model(Schema):
    slug: str
    name: str
    description: str
    task: str = Field(description="chat, classification or fill_mask.")
    version: int | None = Field(description="The version that `slug` alone stands for (alias production).")
    context_window: int | None = Field(description="Tokens; null: not known.")
    is_available: bool
    reason: str = Field(description="Why it is not available; empty when it is.")
    connection: str


class ModelList(Schema):
    items: list[Model]
    next_cursor: str | None = Field(None, description="Always null: all models come at once.")


class Version(Schema):
    number: int
    provider_model: str = Field(description="What the provider or the engine calls it.")
    source: str
    revision: str
    is_ready: bool
    not_ready_reason: str
    context_window: int | None
    aliases: list[str]
    created_at: datetime
    retired_at: datetime | None


class VersionList(Schema):
    items: list[Version]
    next_cursor: str | None = Field(None, description="Always null: all versions come at once.")


class AliasMove(RequestSchema):
    version: int = Field(ge=1, le=2**31 - 1)
    reason: str = Field(min_length=1, max_length=500, examples=["Better at summaries in the evaluation."])


class AliasMoved(Schema):
    model: str
    alias: str
    version: int
    previous_version: int | None
    reason: str


@router.get("", response=ModelList, summary="List the models I may use")
def list_models(request: HttpRequest) -> dict[str, list[ModelCard] | None]:
    return {"items": selectors.list_models(user=request.auth), "next_cursor": None}


# A slug may hold slashes: OPENAI_MODELS names models of other providers too.
@router.get("/{path:slug}/versions", response=VersionList, summary="List the versions of a model")
def list_versions(request: HttpRequest, slug: str) -> dict[str, object]:
    return {"items": selectors.list_versions(slug, user=request.auth), "next_cursor": None}


@router.put("/{path:slug}/aliases/{str:alias}", response=AliasMoved, summary="Point an alias at a version")
def move_alias(request: HttpRequest, slug: str, alias: str, move: AliasMove) -> dict[str, object]:
    """For admins. The move is kept with its reason; moving back is another move."""
    model = selectors.get_model(slug, user=request.auth)
    if not request.auth.is_superuser:
        raise ForbiddenError("Only an admin may move an alias.")
    version = ModelVersion.objects.filter(model=model, number=move.version).first()
    if version is None:
        raise NotFoundError(f"{slug} has no version {move.version}.")
    try:
        event = services.move_alias(model, alias, version, actor=request.auth, reason=move.reason)
    except AliasMoveError as error:
        raise InvalidError(str(error)) from error
    return {
        "model": slug,
        "alias": alias,
        "version": version.number,
        "previous_version": event.from_number,
        "reason": event.reason,
    }
