"""What every database can keep as text. Light: workers and commands ask it too."""

from __future__ import annotations


def is_storable(text: str) -> bool:
    """False for NUL, which PostgreSQL refuses, and for a lone surrogate, which no database can encode."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
