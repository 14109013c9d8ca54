"""Opaque cursors for paged lists: where the last page ended. Whoever makes one up gets `invalid`, never a crash."""

from __future__ import annotations

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from chat.errors import InvalidError

MAX_LENGTH = 500


def encode_cursor(*values: Any) -> str:
    text = json.dumps([value.isoformat() if isinstance(value, datetime) else str(value) for value in values])
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """The values, each of its kind. Raises InvalidError."""
    try:
        if len(cursor) > MAX_LENGTH:
            raise ValueError
        values = json.loads(urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
        if not isinstance(values, list) or len(values) != len(kinds):
            raise ValueError
        return tuple(_parse(value, kind) for value, kind in zip(values, kinds, strict=True))
    except (ValueError, TypeError, OverflowError, binascii.Error, RecursionError) as error:
        raise InvalidError("The cursor is not valid. Begin again without one.") from error


def _parse(value: Any, kind: type) -> Any:
    if kind is datetime:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    return UUID(value) if kind is UUID else kind(value)
