"""The rows of one moment, read once, split and written to files; in memory only hashes, groups and labels."""

from __future__ import annotations

import json
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

from django.db.models import QuerySet

from finetuning.datasets.folders import SPLITS
from finetuning.datasets.version_rows import write_durably
from finetuning.formats import PreferenceExample
from finetuning.formats.hashing import hash_version
from finetuning.formats.measures import measure_labels, measure_length_bias, measure_lengths
from finetuning.formats.problems import Problem
from finetuning.formats.splits import SplitItem, assign_splits
from finetuning.models import Example

CHUNK = 1000
SPOOL = "all.jsonl"
COLUMNS = ("content_hash", "group", "label", "length")
MORE_COLUMNS = ("content", "findings", "origin", "contributor_id", "conversation_id")


@dataclass(slots=True)
class Contributed:
    rows: int = 0
    corrections: int = 0


@dataclass(slots=True)
class Snapshot:
    content_hash: str = ""
    rows: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    contributors: dict[tuple[int, UUID | None], Contributed] = field(default_factory=dict)


def write_snapshot(
    rows: QuerySet[Example], folder: Path | None, *, seed: int, shares: Mapping[str, float], kind: str = ""
) -> Snapshot:
    """A file for each split in the folder; without a folder nothing is written and only the hash and counts come.

    Each row is read once, in the order of the ids, so a version is consistent with itself whatever goes on meanwhile.
    """
    reader = _Reader(rows, with_content=folder is not None)
    if folder is None:
        for _ in reader:
            pass
        return reader.conclude(assign_splits(reader.items, seed=seed, shares=shares))
    spool = folder / SPOOL
    with spool.open("wb") as stream:
        stream.writelines(reader)
    splits = assign_splits(reader.items, seed=seed, shares=shares)
    _part(spool, splits, folder)
    snapshot = reader.conclude(splits)
    snapshot.report = reader.report(_measure_bias(spool) if kind == "preference" else None)
    spool.unlink()
    return snapshot


class _Reader(Iterable[bytes]):
    """The lines of the rows, and on the way what is known about all of them."""

    def __init__(self, rows: QuerySet[Example], *, with_content: bool) -> None:
        self._rows = rows
        self._columns = ("pk", *COLUMNS, *(MORE_COLUMNS if with_content else ()))
        self._lengths = array("L")
        self._findings: Counter[str] = Counter()
        self._origins: Counter[str] = Counter()
        self._contributors: dict[tuple[int, UUID | None], Contributed] = {}
        self.items: list[SplitItem] = []

    def __iter__(self) -> Iterator[bytes]:
        for row in self._read():
            self.items.append(SplitItem(row["content_hash"], row["group"], sys.intern(row["label"])))
            self._lengths.append(row["length"])
            if "content" in row:
                self._notice(row)
                yield _line(row)

    def _read(self) -> Iterator[dict[str, Any]]:
        """In chunks by id: a single long read would keep SQLite from tidying up behind the writers."""
        last = 0
        while chunk := list(self._rows.filter(pk__gt=last).order_by("pk").values(*self._columns)[:CHUNK]):
            yield from chunk
            last = chunk[-1]["pk"]

    def _notice(self, row: dict[str, Any]) -> None:
        self._findings.update(row["findings"].keys())
        self._origins[row["origin"]] += 1
        if row["contributor_id"] is not None:
            key = (row["contributor_id"], row["conversation_id"])
            contributed = self._contributors.setdefault(key, Contributed())
            contributed.rows += 1
            contributed.corrections += row["origin"] == Example.Origin.CORRECTION

    def conclude(self, splits: list[str]) -> Snapshot:
        return Snapshot(
            content_hash=hash_version((item.content_hash for item in self.items), splits=splits),
            rows=len(self.items),
            counts={split: splits.count(split) for split in SPLITS},
            contributors=self._contributors,
        )

    def report(self, bias: tuple[float, list[Problem]] | None) -> dict[str, Any]:
        """What people look at before they train: lengths, labels, where the rows come from, warnings."""
        lengths = measure_lengths(self._lengths)
        labels = measure_labels(label for item in self.items if (label := item.label))
        warnings = list(labels.warnings)
        report: dict[str, Any] = {
            "lengths": asdict(lengths),
            "labels": {"counts": labels.counts, "total": labels.total, "majority_share": labels.majority_share},
            "origins": dict(self._origins),
            "findings": dict(self._findings),
        }
        if bias is not None:
            report["longer_chosen_share"] = bias[0]
            warnings += bias[1]
        return report | {"warnings": [{"code": str(found.code), "message": found.message} for found in warnings]}


def _line(row: dict[str, Any]) -> bytes:
    conversation = row["conversation_id"]
    data = {
        "id": row["pk"],
        "hash": row["content_hash"],
        "group": row["group"],
        "label": row["label"],
        "contributor": row["contributor_id"],
        "conversation": str(conversation) if conversation else None,
        "content": row["content"],
    }
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _part(spool: Path, splits: list[str], folder: Path) -> None:
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {
            split: stack.enter_context((folder / f"{split}.jsonl").open("wb")) for split in SPLITS
        }
        lines = stack.enter_context(spool.open("rb"))
        for split, line in zip(splits, lines, strict=True):
            files[split].write(line)
        for file in files.values():
            write_durably(file)


def _measure_bias(spool: Path) -> tuple[float, list[Problem]]:
    with spool.open("rb") as lines:
        return measure_length_bias(PreferenceExample.from_dict(json.loads(line)["content"]) for line in lines)
