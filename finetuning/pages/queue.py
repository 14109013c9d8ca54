"""The review queue as its address describes it: which rows, how they are shown, and which one comes next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal
from urllib.parse import urlencode

from django.db.models import QuerySet

from finetuning.datasets import filter_examples
from finetuning.models import Dataset, Example
from finetuning.scanning import FindingKind

Mode = Literal["one", "list"]
ANY = "any"
MAX_QUERY = 200


@dataclass(frozen=True, slots=True)
class Filter:
    status: str = Example.Status.PENDING
    finding: str = ""
    origin: str = ""
    query: str = ""
    mode: Mode = "one"

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> Filter:
        """Whatever is not known is left out: an address that somebody typed shows more rows, not an error."""
        return cls(
            _known(values.get("status", Example.Status.PENDING), Example.Status.values),
            _known(values.get("finding", ""), [ANY, *FindingKind]),
            _known(values.get("origin", ""), Example.Origin.values),
            values.get("q", "").replace("\x00", "").strip()[:MAX_QUERY],
            "list" if values.get("mode") == "list" else "one",
        )

    @property
    def is_plain_queue(self) -> bool:
        return replace(self, mode="one") == Filter()

    @property
    def query_string(self) -> str:
        values = asdict(self)
        values["q"] = values.pop("query")
        return urlencode(values)

    @property
    def one_by_one(self) -> str:
        return replace(self, mode="one").query_string

    @property
    def as_list(self) -> str:
        return replace(self, mode="list").query_string

    @property
    def filters(self) -> dict[str, str]:
        """As `filter_examples` and `list_examples` take them."""
        return {"status": self.status, "query": self.query, "finding": self.finding, "origin": self.origin}

    def find(self, dataset: Dataset) -> QuerySet[Example]:
        return filter_examples(dataset, **self.filters).order_by("id")


def _known(value: str, values: list[str]) -> str:
    return value if value in values else ""


@dataclass(frozen=True, slots=True)
class Place:
    """One row of the queue and its neighbours; `row` None: the queue is empty."""

    row: Example | None
    position: int = 0
    previous: int | None = None
    following: int | None = None


def find_place(
    dataset: Dataset, matching: QuerySet[Example], *, example_id: int | None = None, after: int | None = None
) -> Place:
    """The row somebody asked for, whether it matches or not; else the one after; else the first.

    The row just decided has often left the queue: it stays the previous one, so that a slip can be taken back.
    """
    rows = Example.objects.filter(dataset=dataset).select_related("reviewed_by", "model_version__model")
    row = rows.filter(pk=example_id).first() if example_id else None
    if row is None:
        start = matching.filter(pk__gt=after) if after else matching
        found = start.values_list("pk", flat=True).first() or matching.values_list("pk", flat=True).first()
        row = rows.filter(pk=found).first() if found else None
    if row is None:
        return Place(None, previous=after)
    before = matching.filter(pk__lt=row.pk)
    previous = after if after and after != row.pk else before.values_list("pk", flat=True).last()
    following = matching.filter(pk__gt=row.pk).values_list("pk", flat=True).first()
    return Place(row, before.count() + 1, previous, following)
