"""The files of a frozen version: one line of JSON for each row, a file for each split."""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from chat.errors import InvalidError
from finetuning.datasets.folders import SPLITS, under_data
from finetuning.formats.hashing import hash_version
from finetuning.models import DatasetVersion

LINES_AT_ONCE = 500


def split_path(version: DatasetVersion, split: str) -> Path:
    """Where the rows of a split are. A split without rows has an empty file."""
    if split not in SPLITS:
        raise InvalidError(f"A version has the splits {', '.join(SPLITS)}.")
    return under_data(version.folder) / f"{split}.jsonl"


def read_rows(version: DatasetVersion, split: str) -> Iterator[dict[str, Any]]:
    """In the version's order: id, hash, group, label, contributor, conversation, content. Constant memory."""
    with split_path(version, split).open("rb") as lines:
        for line in lines:
            yield json.loads(line)


def iterate_export(version: DatasetVersion, split: str = "") -> Iterator[bytes]:
    """What the rows say, as JSON lines in the published shapes, some lines at a time; without a split all of them.

    Raises InvalidError at once for a split that no version has.
    """
    splits = (split,) if split else SPLITS
    for name in splits:
        split_path(version, name)
    return _iterate_export(version, splits)


def _iterate_export(version: DatasetVersion, splits: tuple[str, ...]) -> Iterator[bytes]:
    lines: list[bytes] = []
    for name in splits:
        for row in read_rows(version, name):
            lines.append(json.dumps(row["content"], ensure_ascii=False).encode() + b"\n")
            if len(lines) >= LINES_AT_ONCE:
                yield b"".join(lines)
                lines = []
    if lines:
        yield b"".join(lines)


def iterate_hashes(version: DatasetVersion) -> Iterator[tuple[int, str, str]]:
    """Id, content hash and split of every row, in the order of the ids."""
    sources = [_iterate_split(version, split) for split in SPLITS]
    yield from heapq.merge(*sources)


def _iterate_split(version: DatasetVersion, split: str) -> Iterator[tuple[int, str, str]]:
    for row in read_rows(version, split):
        yield row["id"], row["hash"], split


def hash_files(version: DatasetVersion) -> str:
    """What `content_hash` is while nobody has touched the files."""
    rows = [(content_hash, split) for _, content_hash, split in iterate_hashes(version)]
    return hash_version((row[0] for row in rows), splits=(row[1] for row in rows))


def write_durably(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())
