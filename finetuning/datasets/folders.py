"""Where a dataset's files lie under DATA_DIR: uploads while they arrive, and the frozen versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from config.app_settings import get_settings
from config.file_lock import file_lock

SPLITS = ("train", "validation", "test")


def upload_path(import_id: UUID) -> Path:
    return get_settings().data_dir / "uploads" / str(import_id)


def marks_path(import_id: UUID) -> Path:
    """A byte for each part of an upload: 1 once it has arrived."""
    return get_settings().data_dir / "uploads" / f"{import_id}.parts"


def dataset_folder(dataset_id: int) -> Path:
    return get_settings().data_dir / "datasets" / str(dataset_id)


def under_data(path: str) -> Path:
    """A path as the database keeps it: under DATA_DIR, or absolute."""
    return get_settings().data_dir / path


@contextmanager
def dataset_lock(dataset_id: int, *, wait: bool) -> Iterator[bool]:
    """Whoever writes a dataset's version files holds it, as `file_lock` does; to wait takes as long as a freeze."""
    folder = dataset_folder(dataset_id)
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / "lock", wait=wait) as is_held:
        yield is_held
