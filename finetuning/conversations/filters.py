"""Which replies a dataset is built of: a selection as pages and API send it, checked, and kept with the import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Self

from chat.errors import InvalidError
from chat.feedback import TAGS
from chat.models import Feedback

CHAT, PREFERENCE, KTO = "chat", "preference", "kto"
KINDS = (CHAT, PREFERENCE, KTO)
MAX_SLUG, MAX_PEOPLE = 200, 1000


@dataclass(frozen=True, kw_only=True)
class Filters:
    """None and empty mean: whatever it is. The dates are days in UTC, both included, of when the reply was written.

    `kind` says what becomes of it. chat: corrected answers and answers rated good. preference: pairs of a corrected
    answer and its original, and of a chosen answer and the others. kto: rated answers. `rating`, `corrected` and
    `tags` speak of the reply itself; of a choice, of the chosen one. One of `tags` is enough.
    """

    kind: str = CHAT
    rating: int | None = None
    corrected: bool | None = None
    model: str | None = None
    version: int | None = None
    since: date | None = None
    until: date | None = None
    tags: tuple[str, ...] = ()
    people: tuple[int, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From JSON, where dates are texts. Raises InvalidError."""
        if unknown := data.keys() - {field.name for field in fields(cls)}:
            raise InvalidError(f"There is no filter {min(unknown)[:50]!r}.")
        values = {name: value for name, value in data.items() if value not in (None, "", [])}
        for name in ("since", "until"):
            if isinstance(value := values.get(name), str):
                values[name] = _parse_day(value, name)
        for name in ("tags", "people"):
            if isinstance(value := values.get(name), list):
                values[name] = tuple(value)
        return cls(**values).check()

    def to_dict(self) -> dict[str, Any]:
        """What was chosen, as JSON; `from_dict` reads it."""
        chosen = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return {name: value.isoformat() if isinstance(value, date) else value for name, value in chosen.items()}

    def check(self) -> Self:
        """Raises InvalidError naming the filter that is wrong."""
        if self.kind not in KINDS:
            raise InvalidError(f"kind must be one of {', '.join(KINDS)}.")
        if self.rating is not None and (isinstance(self.rating, bool) or self.rating not in Feedback.Rating.values):
            raise InvalidError("rating must be 1 (good) or -1 (bad).")
        if self.corrected is not None and not isinstance(self.corrected, bool):
            raise InvalidError("corrected must be true or false.")
        if self.version is not None and not _is_number(self.version):
            raise InvalidError("version must be a whole number.")
        if self.model is not None and not (isinstance(self.model, str) and len(self.model) <= MAX_SLUG):
            raise InvalidError("model must be the name of a model.")
        self._check_lists()
        self._check_days()
        return self

    def _check_lists(self) -> None:
        if not isinstance(self.tags, tuple):
            raise InvalidError("tags must be a list of tags.")
        if unknown := [tag for tag in self.tags if not isinstance(tag, str) or tag not in TAGS]:
            raise InvalidError(f"There is no tag {str(unknown[0])[:50]!r}. The tags are {', '.join(TAGS)}.")
        is_list = isinstance(self.people, tuple) and len(self.people) <= MAX_PEOPLE
        if not is_list or not all(_is_number(person) for person in self.people):
            raise InvalidError(f"people must be a list of at most {MAX_PEOPLE} ids.")

    def _check_days(self) -> None:
        for name in ("since", "until"):
            day = getattr(self, name)
            if day is not None and not (isinstance(day, date) and day.year < date.max.year):
                raise InvalidError(f"{name} must be a day, such as 2026-03-31.")
        if self.since and self.until and self.since > self.until:
            raise InvalidError("since is after until, so nothing can fit.")

    @property
    def since_moment(self) -> datetime:
        return datetime.combine(self.since, time(), UTC)

    @property
    def until_moment(self) -> datetime:
        """The first one that is too late."""
        return datetime.combine(self.until + timedelta(days=1), time(), UTC)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _parse_day(value: str, name: str) -> date:
    try:
        return date.fromisoformat(value[:10])
    except ValueError:
        raise InvalidError(f"{name} must be a day, such as 2026-03-31.") from None
