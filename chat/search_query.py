"""What a person typed into the search field, taken apart. Nothing is a syntax error: what is no operator is a word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from config.storable import is_storable

MAX_CHARS = 500
MAX_TERMS = 12
_PIECE = re.compile(r'(?:(?P<operator>title|before|after|model):)?(?:"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))', re.I)


@dataclass(frozen=True)
class SearchQuery:
    terms: tuple[str, ...] = ()
    """Words and phrases, all of which must occur."""
    titles: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    before: datetime | None = None
    after: datetime | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.terms or self.titles or self.models or self.before or self.after)


def parse_query(text: str) -> SearchQuery:
    kept = "".join(character for character in text[:MAX_CHARS] if is_storable(character))
    found: dict[str, list[str]] = {"": [], "title": [], "model": []}
    dates: dict[str, datetime] = {}
    for piece in list(_PIECE.finditer(kept))[:MAX_TERMS]:
        operator, value = (piece["operator"] or "").lower(), (piece["phrase"] or piece["word"] or "").strip()
        if operator in ("before", "after"):
            if moment := _parse_day(value):
                dates[operator] = moment
                continue
            operator, value = "", piece[0]
        if value:
            found[operator].append(value)
    return SearchQuery(tuple(found[""]), tuple(found["title"]), tuple(found["model"]), **dates)


def _parse_day(text: str) -> datetime | None:
    try:
        return datetime.combine(date.fromisoformat(text), time(), tzinfo=UTC)
    except ValueError:
        return None
