"""What the pages of datasets count: rows by state, newest versions, imports under way. A fixed number of queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from finetuning.models import Dataset, DatasetImport, DatasetVersion, Example
from finetuning.pages.charts import Share, stack_shares

OPEN = (
    DatasetImport.Status.RECEIVING,
    DatasetImport.Status.WAITING,
    DatasetImport.Status.QUEUED,
    DatasetImport.Status.RUNNING,
)
TONES = {Example.Status.APPROVED: "good", Example.Status.PENDING: "warn", Example.Status.REJECTED: "bad"}


@dataclass(frozen=True, slots=True)
class Card:
    dataset: Dataset
    counts: Counter[str]
    version: DatasetVersion | None
    running: DatasetImport | None

    @property
    def total(self) -> int:
        return self.counts.total()

    @property
    def shares(self) -> list[Share]:
        return share_statuses(self.counts)


def make_cards(datasets: Sequence[Dataset]) -> list[Card]:
    """Of datasets as `list_datasets` gives them: with their counts and newest version."""
    running = {item.dataset_id: item for item in _open_imports(datasets)}
    return [Card(item, Counter(item.counts), item.newest_version, running.get(item.pk)) for item in datasets]


def share_statuses(counts: Mapping[str, int]) -> list[Share]:
    return stack_shares([(str(status.label), counts.get(status, 0), tone) for status, tone in TONES.items()])


def _open_imports(datasets: Sequence[Dataset]) -> Iterable[DatasetImport]:
    """The newest of each dataset comes last."""
    return DatasetImport.objects.filter(dataset__in=datasets, status__in=OPEN).order_by("created_at")
