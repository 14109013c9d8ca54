"""What a dataset version is made of, by content hash: duplicates, one hash for all, the difference of two versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import repeat

from finetuning.formats.examples import Example


class DuplicateFilter:
    """Remembers half of each hash, about 100 bytes an example: a million fit in 100 MB."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._seen = {bytes.fromhex(content_hash[:32]) for content_hash in known}

    def is_new(self, content_hash: str) -> bool:
        """True the first time a hash comes; remembers it."""
        before = len(self._seen)
        self._seen.add(bytes.fromhex(content_hash[:32]))
        return len(self._seen) > before


def drop_duplicates(examples: Iterable[Example]) -> Iterator[Example]:
    """Of exact duplicates the first."""
    duplicates = DuplicateFilter()
    return (example for example in examples if duplicates.is_new(example.content_hash()))


def hash_version(hashes: Iterable[str], *, splits: Iterable[str] | None = None) -> str:
    """SHA-256 over the examples in their order and, when given, the split each of them is in."""
    total = sha256()
    if splits is None:
        pairs: Iterable[tuple[str, str]] = zip(hashes, repeat(""), strict=False)
    else:
        pairs = zip(hashes, splits, strict=True)
    for content_hash, split in pairs:
        total.update(f"{content_hash} {split}\n".encode())
    return total.hexdigest()


@dataclass(frozen=True, slots=True)
class VersionDiff:
    added: list[str]  # in the new version's order
    removed: list[str]  # in the old one's
    kept: int
    is_reordered: bool  # what both have stands in another order


def diff_versions(old: Sequence[str], new: Sequence[str]) -> VersionDiff:
    """Compares two lists of content hashes, each hash as often as it stands there."""
    added, kept_new = _part(new, Counter(old))
    removed, kept_old = _part(old, Counter(new))
    return VersionDiff(added, removed, len(kept_new), kept_old != kept_new)


def _part(hashes: Sequence[str], others: Counter[str]) -> tuple[list[str], list[str]]:
    alone, shared = [], []
    for content_hash in hashes:
        if others[content_hash] > 0:
            others[content_hash] -= 1
            shared.append(content_hash)
        else:
            alone.append(content_hash)
    return alone, shared
