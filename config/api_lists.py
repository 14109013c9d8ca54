"""Lists that are short enough to be read whole: all at once, or cut into pages for whoever asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ninja import Schema
from pydantic import Field

from chat.cursors import decode_cursor, encode_cursor
from chat.errors import InvalidError

MAX_LIMIT = 1000
NEXT = Field(None, description="Give it as `cursor` to get the next page; null: this is the last.")


class ListQuery(Schema):
    cursor: str | None = None
    limit: int | None = Field(None, ge=1, le=MAX_LIMIT, description="How many at most. Null: all at once.")


def cut_list(items: Sequence[Any], query: ListQuery, *, key: Callable[[Any], object]) -> dict[str, Any]:
    """The page that was asked for; `key` tells the items apart. Raises InvalidError for a cursor that leads nowhere."""
    start = _place_behind(items, query.cursor, key) if query.cursor else 0
    end = start + query.limit if query.limit else len(items)
    return {"items": items[start:end], "next_cursor": encode_cursor(key(items[end - 1])) if end < len(items) else None}


def _place_behind(items: Sequence[Any], cursor: str, key: Callable[[Any], object]) -> int:
    (last,) = decode_cursor(cursor, str)
    for place, item in enumerate(items, 1):
        if str(key(item)) == last:
            return place
    raise InvalidError("The cursor is not valid. Begin again without one.")
