"""Reads one JSON object field by field. What is missing, wrong or unknown is refused by name, never guessed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from models_hub.engine.errors import InvalidRequestError, UnsupportedParameterError


def parse_object(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("The body is not valid JSON.") from error
    if not isinstance(data, dict):
        raise InvalidRequestError("The body must be a JSON object.")
    return data


def check_text(text: Any, param: str) -> str:
    """A lone surrogate passes JSON, and breaks the tokenizer."""
    if not isinstance(text, str):
        raise InvalidRequestError(f"{param} must be a text.", param=param)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"{param} is not valid Unicode.", param=param) from error
    return text


class Fields:
    """A field that is null counts as absent, as in OpenAI's protocol."""

    def __init__(self, data: dict[str, Any], *, known: Iterable[str], prefix: str = "") -> None:
        self._prefix = prefix
        self._data = {name: value for name, value in data.items() if value is not None}
        unknown = sorted(str(name) for name in self._data if name not in set(known))
        if unknown:
            name = self._name(unknown[0])
            raise UnsupportedParameterError(f"This engine does not support the parameter {name!r}.", param=name)

    def _name(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def has(self, name: str) -> bool:
        return name in self._data

    def raw(self, name: str) -> Any:
        return self._data.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        if name not in self._data and default is not None:
            return default
        if name not in self._data:
            raise InvalidRequestError(f"{self._name(name)} is missing.", param=self._name(name))
        return check_text(self._data[name], self._name(name))

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._data.get(name, default)
        if not isinstance(value, bool):
            raise InvalidRequestError(f"{self._name(name)} must be true or false.", param=self._name(name))
        return value

    def whole(self, name: str, minimum: int, maximum: int) -> int | None:
        value = self._data.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise self._out_of_range(name, f"a whole number from {minimum} to {maximum}")
        return value

    def decimal(self, name: str, default: float, minimum: float, maximum: float) -> float:
        value = self._data.get(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not minimum <= value <= maximum:
            raise self._out_of_range(name, f"a number from {minimum:g} to {maximum:g}")
        return float(value)

    def texts(self, name: str, *, maximum: int) -> list[str]:
        """A text or a list of texts; absent: an empty list."""
        value = self._data.get(name, [])
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or len(items) > maximum:
            message = f"{self._name(name)} must be a text or at most {maximum} texts."
            raise InvalidRequestError(message, param=self._name(name))
        return [check_text(item, self._name(name)) for item in items]

    def _out_of_range(self, name: str, wanted: str) -> InvalidRequestError:
        return InvalidRequestError(f"{self._name(name)} must be {wanted}.", param=self._name(name))
