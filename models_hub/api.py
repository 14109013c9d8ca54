"""`/api/models`: the models a person may use. Their versions: `finetuning.api.versions`."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Query, Router, Schema
from pydantic import Field

from config.api_lists import NEXT, ListQuery, cut_list
from models_hub import selectors

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
    next_cursor: str | None = NEXT


@router.get("", response=ModelList, summary="List the models I may use")
def list_models(request: HttpRequest, query: Query[ListQuery]) -> dict[str, Any]:
    return cut_list(selectors.list_models(user=request.auth), query, key=lambda model: model.slug)
