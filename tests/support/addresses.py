"""Every address the product answers at, and real paths for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db.models import Model
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import RegexPattern

ROUTE_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")
REGEX_PARAMETER = re.compile(r"\(\?P<(\w+)>[^()]*\)")
ADMIN_OBJECT = re.compile(r"admin/(\w+)/(\w+)/<")


@dataclass(frozen=True)
class Address:
    """`route` is the pattern with `<name>` for each parameter; `name` is how `reverse` knows it, or the route."""

    route: str
    name: str

    @property
    def plain(self) -> str:
        """As the API's own documentation writes it."""
        return "/" + ROUTE_PARAMETER.sub(r"{\1}", self.route)

    def takes(self, parameter: str, schema: Mapping[str, Any]) -> bool:
        """Whether a GET here may carry this query parameter: the API refuses what it does not document."""
        paths = {re.sub(r"{\w+:", "{", path): operations for path, operations in schema["paths"].items()}
        known = paths.get(self.plain, {}).get("get", {}).get("parameters", ())
        return not self.route.startswith("api/") or any(one["name"] == parameter for one in known)

    @property
    def parameters(self) -> list[str]:
        return ROUTE_PARAMETER.findall(self.route)

    @property
    def admin_model(self) -> type[Model] | None:
        """Of whose rows this is a page in the admin."""
        found = ADMIN_OBJECT.match(self.route)
        return apps.get_model(*found.groups()) if found else None

    def path(self, values: Mapping[str, Any]) -> str:
        """Raises KeyError for a parameter that nobody thought of: think, and give the sweep a value for it."""
        return "/" + ROUTE_PARAMETER.sub(lambda found: str(self._value(found[1], values)), self.route)

    def _value(self, parameter: str, values: Mapping[str, Any]) -> Any:
        if f"{self.name} {parameter}" in values:
            return values[f"{self.name} {parameter}"]
        if self.admin_model and parameter in {"object_id", "id"}:
            row = self.admin_model._base_manager.first()
            if row is None:
                raise KeyError(f"{self.route} needs a row of {self.admin_model.__name__}: make one for the sweep.")
            return row.pk
        if parameter not in values:
            raise KeyError(f"{self.route}: the sweep has no value for {parameter}.")
        return values[parameter]


def list_addresses() -> list[Address]:
    """One for each path; several views at one path (ninja has one a method) are one address."""
    found = {address.route: address for address in reversed(list(_walk(get_resolver(), "", "")))}
    return list(found.values())


def _walk(resolver: URLResolver, route: str, namespace: str) -> Iterator[Address]:
    for entry in resolver.url_patterns:
        here = route + _route_of(entry)
        if isinstance(entry, URLResolver):
            yield from _walk(entry, here, f"{namespace}{entry.namespace}:" if entry.namespace else namespace)
        else:
            yield Address(here, f"{namespace}{entry.name}" if entry.name else here)


def _route_of(entry: URLPattern | URLResolver) -> str:
    pattern = entry.pattern
    if not isinstance(pattern, RegexPattern):
        return str(pattern)
    route = REGEX_PARAMETER.sub(lambda found: f"<{found[1]}>", str(pattern)).removeprefix("^").removesuffix("$")
    assert not re.search(r"[\\^$*+?|()\[\]]", route), f"cannot read the pattern {pattern}"
    return route


def bodies_of_the_api(schema: Mapping[str, Any], choose: Callable[[str, Mapping[str, Any]], Any]) -> dict[str, Any]:
    """A JSON body with every field for each `METHOD path` that takes one. `choose(name, field)` says with what."""
    bodies = {}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {})
            if "application/json" in content:
                name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
                fields = schema["components"]["schemas"][name]["properties"]
                plain = re.sub(r"{\w+:", "{", path)
                bodies[f"{method.upper()} {plain}"] = {key: choose(key, field) for key, field in fields.items()}
    return bodies
