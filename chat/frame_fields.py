"""How each field of a frame is read: the value it stands for, or a refusal that names the field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from chat.errors import InvalidError
from config.app_settings import get_settings

MAX_STOP_TEXTS = 4


def parse_text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidError(f"{name} must be a text.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidError(f"{name} contains half a character (a lone surrogate).") from None
    if "\0" in value:
        raise InvalidError(f"{name} contains a NUL character.")
    return value


def parse_id(value: Any, name: str) -> UUID:
    try:
        return UUID(parse_text(value, name))
    except ValueError:
        raise InvalidError(f"{name} must be an id.") from None


def optional(parse: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    return lambda value, name: None if value is None else parse(value, name)


def number(low: float, high: float, *, above: bool = False) -> Callable[[Any, str], float]:
    def parse(value: Any, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidError(f"{name} must be a number.")
        if not low <= value <= high or (above and value == low):  # also refuses NaN
            raise InvalidError(f"{name} must be {'above' if above else 'from'} {low:g} {'up ' * above}to {high:g}.")
        return float(value)

    return parse


def integer(low: int, high: int) -> Callable[[Any, str], int]:
    def parse(value: Any, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidError(f"{name} must be a whole number.")
        if not low <= value <= high:
            raise InvalidError(f"{name} must be from {low} to {high}.")
        return value

    return parse


def printable(name: str) -> str:
    """A name somebody made up, short and in characters that every socket can send: half a surrogate is none."""
    return ascii(name[:50])[1:-1]


def parse_stop(value: Any, name: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > MAX_STOP_TEXTS:
        raise InvalidError(f"{name} must be a list of at most {MAX_STOP_TEXTS} texts.")
    if not all(isinstance(text, str) and text for text in texts):
        raise InvalidError(f"{name} must hold texts that are not empty.")
    return [parse_text(text, name) for text in texts]


def parse_system_prompt(value: Any, name: str) -> str:
    limit = get_settings().max_message_chars
    if len(parse_text(value, name)) > limit:
        raise InvalidError(f"{name} may have at most {limit} characters.")
    return value


OPTIONS: dict[str, Callable[[Any, str], Any]] = {
    "temperature": number(0, 2),
    "top_p": number(0, 1, above=True),
    "max_new_tokens": integer(1, 1_000_000),
    "seed": integer(-(2**63), 2**63 - 1),
    "stop": parse_stop,
    "system_prompt": parse_system_prompt,
}


def parse_options(value: Any, name: str = "options") -> dict[str, Any]:
    """Checked options of a reply; a null option is as if it were not there. Out of range is refused, never clamped."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidError(f"{name} must be an object.")
    if unknown := value.keys() - OPTIONS.keys():
        raise InvalidError(f"{name} has an unknown field: {printable(min(unknown))}.")
    return {key: OPTIONS[key](item, f"{name}.{key}") for key, item in value.items() if item is not None}


def parse_after(value: Any, name: str) -> dict[UUID, int]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidError(f"{name} must be an object.")
    whole = integer(0, 2**31)
    return {parse_id(key, f"{name} key"): whole(item, f"{name} value") for key, item in value.items()}
