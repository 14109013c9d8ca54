"""The one check of what a person or a program wrote, before it is stored. Every door uses it."""

from __future__ import annotations

from typing import Any

from chat.errors import InvalidError, TooLongError
from config.storable import is_storable


def storable(text: str) -> str:
    """What a machine wrote, without what no database and no socket takes: NUL, half of a surrogate pair."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "").encode(errors="replace").decode()


def check_text(value: Any, *, limit: int, field: str, required: bool = True) -> str:
    """The text itself. `limit` counts code points.

    Raises TooLongError above the limit; InvalidError when it is no text, blank although required, or holds what a
    database cannot keep: NUL, which PostgreSQL refuses, or half of a surrogate pair.
    """
    if not isinstance(value, str):
        raise InvalidError(f"{field} must be a text.")
    if len(value) > limit:
        raise TooLongError(f"{field} has {len(value)} characters; at most {limit} are allowed.", limit=limit)
    if not is_storable(value):
        raise InvalidError(f"{field} contains a character that cannot be stored (NUL or half of a surrogate pair).")
    if required and not value.strip():
        raise InvalidError(f"{field} must not be empty.")
    return value
