"""Seeded splits: a conversation stays whole, every label keeps its share, and the order of the rows does not matter."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType

TRAIN = "train"
DEFAULT_SHARES: Mapping[str, float] = MappingProxyType({"validation": 0.1})


@dataclass(frozen=True, slots=True)
class SplitItem:
    """`group`: the conversation or person whose rows must not be parted; "" for a row of its own."""

    content_hash: str
    group: str = ""
    label: str = ""

    @property
    def key(self) -> str:
        return f"group {self.group}" if self.group else f"row {self.content_hash}"


def assign_splits(items: Sequence[SplitItem], *, seed: int, shares: Mapping[str, float] = DEFAULT_SHARES) -> list[str]:
    """The split of each item, in order; what no share claims is for training.

    A share is of the rows and kept as nearly as whole groups allow. Each label leaves at least one group to training;
    with two groups or more, the first split named is not empty. ValueError for shares that leave nothing to train.
    """
    if any(share < 0 for share in shares.values()) or sum(shares.values()) >= 1:
        raise ValueError("The shares of the splits must not be negative and must leave something for training.")
    strata = _order_groups(items, seed)
    chosen: dict[str, str] = {}
    carried = dict.fromkeys(shares, 0.0)
    for groups in strata:
        _choose(groups, shares, carried, chosen)
    _fill_first(strata, shares, chosen)
    return [chosen.get(item.key, TRAIN) for item in items]


def _order_groups(items: Iterable[SplitItem], seed: int) -> list[list[tuple[str, int]]]:
    """For each label its groups with their sizes, shuffled by the seed. A group belongs to its most frequent label."""
    sizes: Counter[str] = Counter()
    labels: dict[str, str] = {}
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)  # of groups only: one for each row would be large
    for item in items:
        key = item.key
        sizes[key] += 1
        labels[key] = min(labels.get(key, item.label), item.label)
        if item.group:
            counted[key][item.label] += 1
    for key, counts in counted.items():
        labels[key] = min(counts, key=lambda name: (-counts[name], name))
    strata: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for key, label in labels.items():
        strata[label].append((key, sizes[key]))

    def place(group: tuple[str, int]) -> bytes:
        return sha256(f"{seed} {group[0]}".encode("utf-8", "surrogatepass")).digest()

    return [sorted(strata[label], key=place) for label in sorted(strata)]


def _choose(
    groups: list[tuple[str, int]], shares: Mapping[str, float], carried: dict[str, float], chosen: dict[str, str]
) -> None:
    """Takes from the front what brings each split nearer to its share; what is missing is carried to the next label."""
    rows = sum(size for _, size in groups)
    free = groups[:-1]
    for split, share in shares.items():
        wanted = share * rows + carried[split]
        left = []
        for key, size in free:
            if abs(wanted - size) < abs(wanted):
                chosen[key] = split
                wanted -= size
            else:
                left.append((key, size))
        carried[split] = wanted
        free = left


def _fill_first(strata: list[list[tuple[str, int]]], shares: Mapping[str, float], chosen: dict[str, str]) -> None:
    """A single held-out row is better than none."""
    first = next((split for split, share in shares.items() if share > 0), None)
    groups = [group for stratum in sorted(strata, key=len, reverse=True) for group in stratum]
    if first and len(groups) > 1 and first not in chosen.values():
        key, _ = min((group for group in groups if group[0] not in chosen), key=lambda group: group[1])
        chosen[key] = first
