"""What every router of `/api` builds on: strict request bodies, checked text, and the one shape of an error."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpRequest, JsonResponse
from django.utils.datastructures import MultiValueDict
from ninja import Schema
from ninja.parser import Parser
from pydantic import ConfigDict

from config.storable import is_storable


class RequestSchema(Schema):
    """Base of every request body: an unknown field is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")


class ErrorSchema(Schema):
    """The shape of every error of `/api`. `code` is stable; `message` is for people and may change."""

    code: str
    message: str
    fields: dict[str, Any] = {}


def error_response(status: int, code: str, message: str, *, fields: dict[str, Any] | None = None) -> JsonResponse:
    return JsonResponse({"code": code, "message": message, "fields": fields or {}}, status=status)


class StrictParser(Parser):
    """JSON as the standard has it (no NaN), and only text that every database can store."""

    def parse_body(self, request: HttpRequest) -> Any:
        body = json.loads(request.body, parse_constant=_refuse_constant)
        _require_storable(body)
        return body

    def parse_querydict(self, data: MultiValueDict, list_fields: list[str], request: HttpRequest) -> dict[str, Any]:
        parsed = super().parse_querydict(data, list_fields, request)
        _require_storable(parsed)
        return parsed


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _require_storable(value: Any) -> None:
    if isinstance(value, str):
        if not is_storable(value):
            raise UnstorableTextError
    elif isinstance(value, dict):
        for key, item in value.items():
            _require_storable(key)
            _require_storable(item)
    elif isinstance(value, list):
        for item in value:
            _require_storable(item)


class UnstorableTextError(ValueError):
    """A NUL or a lone surrogate in what was sent."""

    def __init__(self) -> None:
        super().__init__("The text contains a character that cannot be stored (NUL or half of a surrogate pair).")
