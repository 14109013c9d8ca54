"""Query parameters of `/api` are as strict as bodies: a name that an address does not know is refused, not ignored."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI

from chat.errors import InvalidError

Run = Callable[..., Any]


class StrictAPI(NinjaAPI):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_decorator(_note_parameters, mode="view")

    def create_temporal_response(self, request: HttpRequest) -> HttpResponse:
        """Ninja asks for it once the caller is known to be allowed in: somebody else is told that, and nothing more."""
        unknown = sorted(set(request.GET) - request.known_parameters)  # type: ignore[attr-defined]
        if unknown:
            fields = dict.fromkeys(unknown, "This parameter is not known here.")
            raise InvalidError(f"{', '.join(unknown)}: this address does not know such a parameter.", **fields)
        return super().create_temporal_response(request)


def _note_parameters(run: Run) -> Run:
    """Keep with each request which query parameters its operation takes."""
    known = parameters_of(run.__self__)  # type: ignore[attr-defined]

    @wraps(run)
    def noted(request: HttpRequest, **values: Any) -> Any:
        request.known_parameters = known  # type: ignore[attr-defined]
        return run(request, **values)

    return noted


def parameters_of(operation: Any) -> frozenset[str]:
    models = [model for model in operation.models if model.__ninja_param_source__ == "query"]
    return frozenset(name for model in models for name in model.__ninja_flatten_map__)
