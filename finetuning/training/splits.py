"""Seeded splits of labelled rows: every label keeps its share on both sides."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence


def stratified_split(labels: Sequence[str], *, held_out: float = 0.1, seed: int = 42) -> tuple[list[int], list[int]]:
    """The rows for training and those held out, both in their first order. A label with one row stays in training."""
    by_label: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        by_label[label].append(row)
    source = random.Random(seed)  # noqa: S311 - a choice of rows, not a secret
    chosen: set[int] = set()
    for label in sorted(by_label):
        rows = by_label[label]
        count = min(len(rows) - 1, max(1, round(held_out * len(rows)))) if held_out else 0
        chosen.update(source.sample(rows, count))
    return [row for row in range(len(labels)) if row not in chosen], sorted(chosen)
