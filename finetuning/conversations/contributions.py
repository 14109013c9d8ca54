"""What became of a person's answers: in which frozen versions they are, which model versions learned from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from finetuning.conversations.withdrawal import learned_at
from finetuning.models import DatasetVersion, Example, Lineage, VersionContributor, Withdrawal
from models_hub.models import ModelVersion

if TYPE_CHECKING:
    from accounts.models import User


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of this person. `corrections` are those he wrote himself; the others are answers he judged."""

    rows: int = 0
    corrections: int = 0

    @property
    def others(self) -> int:
        return self.rows - self.corrections

    def __add__(self, other: Part) -> Part:
        return Part(self.rows + other.rows, self.corrections + other.corrections)


@dataclass(frozen=True, slots=True)
class InVersion:
    version: DatasetVersion
    part: Part


@dataclass(frozen=True, slots=True)
class InModel:
    """`taken_back`: rows it has learned from that were withdrawn since."""

    version: ModelVersion
    dataset_version: DatasetVersion
    part: Part
    taken_back: int


@dataclass(frozen=True, slots=True)
class Contributions:
    waiting: int = 0
    versions: list[InVersion] = field(default_factory=list)
    models: list[InModel] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.waiting or self.versions or self.models)


def get_contributions(*, user: User) -> Contributions:
    """A few queries, whatever the number of rows; newest first."""
    held = _parts(VersionContributor.objects.filter(contributor_id=user.pk))
    taken = list(Withdrawal.objects.filter(contributor_id=user.pk))
    versions = DatasetVersion.objects.filter(pk__in=held, status=DatasetVersion.Status.READY).select_related("dataset")
    touched = {*held, *(withdrawal.version_id for withdrawal in taken)}
    learned = Lineage.objects.filter(dataset_version__in=touched).select_related(
        "version__model", "dataset_version__dataset", "job"
    )
    models = [_in_model(lineage, held, taken) for lineage in learned.order_by("-created_at", "-pk")]
    return Contributions(
        waiting=Example.objects.filter(contributor_id=user.pk).exclude(status=Example.Status.REJECTED).count(),
        versions=[InVersion(version, held[version.pk]) for version in versions.order_by("-created_at", "-pk")],
        models=[found for found in models if found.part.rows],
    )


def _parts(rows: Iterable[VersionContributor | Withdrawal]) -> dict[int, Part]:
    """By dataset version."""
    parts: dict[int, Part] = {}
    for row in rows:
        parts[row.version_id] = parts.get(row.version_id, Part()) + Part(row.rows, row.corrections)
    return parts


def _in_model(lineage: Lineage, held: dict[int, Part], taken: list[Withdrawal]) -> InModel:
    lost = _parts(_seen(taken, lineage.dataset_version_id, learned_at(lineage))).get(lineage.dataset_version_id, Part())
    part = held.get(lineage.dataset_version_id, Part()) + lost
    return InModel(lineage.version, lineage.dataset_version, part, lost.rows)


def _seen(taken: list[Withdrawal], version_id: int, moment: datetime) -> list[Withdrawal]:
    return [row for row in taken if row.version_id == version_id and row.withdrawn_at > moment]
