"""The page `/api/docs`: the OpenAPI document as plain HTML, made on the server. No script, and nothing from outside."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from ninja import NinjaAPI
from ninja.openapi.docs import DocsBase

METHODS = ("get", "post", "put", "patch", "delete")
MAX_EXAMPLE_DEPTH = 4
LIMITS = (
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minimum", "from {}"),
    ("exclusiveMinimum", "above {}"),
    ("maximum", "to {}"),
    ("maxItems", "at most {} items"),
)


@dataclass
class Field:
    name: str
    kind: str
    required: bool = False
    description: str = ""
    place: str = ""


@dataclass
class Answer:
    status: str
    schema: str
    example: str


@dataclass
class Endpoint:
    anchor: str
    method: str
    path: str
    summary: str
    description: str
    parameters: list[Field]
    body: list[Field]
    answers: list[Answer]
    command: str


@dataclass
class Group:
    name: str
    endpoints: list[Endpoint] = field(default_factory=list)


class ReferencePage(DocsBase):
    def render_page(self, request: HttpRequest, api: NinjaAPI, **kwargs: Any) -> HttpResponse:
        document = api.get_openapi_schema(path_params=kwargs)
        reference = Reference(document, base_url=f"{request.scheme}://{request.get_host()}")
        context = {
            "title": document["info"]["title"],
            "description": document["info"]["description"],
            "groups": reference.groups(),
            "schemas": reference.schemas(),
            "openapi_url": self.get_openapi_url(api, kwargs),
        }
        return render(request, "api/reference.html", context)


class Reference:
    """An OpenAPI document as rows for a template."""

    def __init__(self, document: dict[str, Any], *, base_url: str) -> None:
        self._paths = document["paths"]
        self._schemas = document.get("components", {}).get("schemas", {})
        self._base_url = base_url

    def groups(self) -> list[Group]:
        groups: dict[str, Group] = {}
        for path, operations in self._paths.items():
            for method in METHODS:
                if method in operations:
                    tag = (operations[method].get("tags") or ["other"])[0]
                    groups.setdefault(tag, Group(tag)).endpoints.append(
                        self._endpoint(method, path, operations[method])
                    )
        return list(groups.values())

    def schemas(self) -> list[tuple[str, list[Field]]]:
        return [(name, self._fields(schema)) for name, schema in sorted(self._schemas.items())]

    def _endpoint(self, method: str, path: str, operation: dict[str, Any]) -> Endpoint:
        body = _json_schema(operation.get("requestBody", {}))
        return Endpoint(
            anchor=operation["operationId"],
            method=method.upper(),
            path=path,
            summary=operation.get("summary", ""),
            description=operation.get("description", ""),
            parameters=[self._parameter(parameter) for parameter in operation.get("parameters", [])],
            body=self._fields(self._resolve(body)) if body else [],
            answers=[self._answer(status, answer) for status, answer in operation["responses"].items()],
            command=self._command(method, path, body),
        )

    def _parameter(self, parameter: dict[str, Any]) -> Field:
        schema = parameter["schema"]
        description = parameter.get("description") or schema.get("description", "")
        return Field(
            parameter["name"], self._kind(schema), parameter.get("required", False), description, parameter["in"]
        )

    def _answer(self, status: int | str, answer: dict[str, Any]) -> Answer:
        schema = _json_schema(answer)
        example = json.dumps(self._example(schema), indent=2, ensure_ascii=False) if schema else ""
        return Answer(str(status), self._kind(schema) if schema else "no content", example)

    def _fields(self, schema: dict[str, Any]) -> list[Field]:
        required = schema.get("required", [])
        return [
            Field(name, self._kind(each), name in required, each.get("description", ""))
            for name, each in schema.get("properties", {}).items()
        ]

    def _resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        return self._schemas[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema

    def _kind(self, schema: dict[str, Any]) -> str:
        """A type in words: "string, at most 100 characters, or null"."""
        if "$ref" in schema:
            return schema["$ref"].rsplit("/", 1)[1]
        for several in ("anyOf", "oneOf", "allOf"):
            if several in schema:
                return " or ".join(self._kind(each) for each in schema[several])
        if "enum" in schema:
            return " or ".join(json.dumps(value) for value in schema["enum"])
        if schema.get("type") == "array":
            return f"list of {self._kind(schema.get('items', {}))}"
        words = [schema.get("format") or schema.get("type") or "anything"]
        return ", ".join(words + [sentence.format(schema[key]) for key, sentence in LIMITS if key in schema])

    def _example(self, schema: dict[str, Any], depth: int = 0) -> Any:
        schema = self._resolve(schema)
        if schema.get("examples"):
            return schema["examples"][0]
        if "anyOf" in schema:
            return self._example(schema["anyOf"][0], depth)
        if schema.get("default") is not None:
            return schema["default"]
        if depth > MAX_EXAMPLE_DEPTH:
            return None
        if "properties" in schema:
            return {name: self._example(each, depth + 1) for name, each in schema["properties"].items()}
        if schema.get("type") == "array":
            return [self._example(schema.get("items", {}), depth + 1)]
        return _plain_example(schema)

    def _command(self, method: str, path: str, body: dict[str, Any] | None) -> str:
        parts = ["curl", '-H "Authorization: Bearer $DIALOOP_KEY"']
        if method != "get":
            parts.append(f"-X {method.upper()}")
        if body:
            parts.append(f"-d '{json.dumps(self._example(body), ensure_ascii=False)}'")
        return " \\\n  ".join([*parts, f'"{self._base_url}{path}"'])


def _json_schema(holder: dict[str, Any]) -> dict[str, Any] | None:
    return holder.get("content", {}).get("application/json", {}).get("schema")


def _plain_example(schema: dict[str, Any]) -> Any:
    by_format = {"uuid": "5f0f4b6e-0d0a-4a52-9d52-6a0b7f6f3a11", "date-time": "2030-01-31T12:00:00Z"}
    by_type = {"string": "text", "integer": 1, "number": 0.7, "boolean": True, "object": {}, "null": None}
    return by_format.get(schema.get("format", ""), by_type.get(schema.get("type", "")))
