"""Where a job keeps its files under DATA_DIR, and where its base, its data and its result are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

from config.app_settings import get_settings
from models_hub.models import ModelVersion

PREFLIGHT, RUN, EVALUATION = "preflight", "run", "evaluation"
LOCK = "lock"
SPEC, LOG, EVENTS = "spec.json", "log.txt", "events.jsonl"
CHECKPOINTS = "checkpoints"
HUB_FOLDER = "hub"


def job_folder(job_id: UUID | str) -> Path:
    return get_settings().data_dir / "jobs" / str(job_id)


def fresh_folder(folder: Path) -> Path:
    """Empty, whatever was in it. Raises OSError."""
    shutil.rmtree(folder, ignore_errors=True)
    return open_folder(folder)


def open_folder(folder: Path) -> Path:
    """People's texts are in it, so it is for this user only. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def write_json(file: Path, values: dict[str, Any]) -> None:
    """Whole or not at all. Raises OSError."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(json.dumps(values, ensure_ascii=False, indent=2))
    fresh.rename(file)


def read_json(file: Path) -> dict[str, Any]:
    """Empty when it is not there or broken."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return {}


def read_tail(file: Path, *, size: int = 4_000) -> str:
    """The end of a log, for somebody who asks why."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - size))
            return stream.read().decode("utf-8", "replace").replace("\x00", "")
    except OSError:
        return ""


def version_folder(version: ModelVersion) -> Path | None:
    """The folder of a version of the engine: absolute, under the model cache, or what the Hub's cache has of it.

    None when it is not on this machine: nothing is downloaded for a training.
    """
    cache = get_settings().model_cache_dir
    named = Path(version.source)
    folder = named if named.is_absolute() else cache / named
    if version.source and _is_model(folder):
        return folder
    found = _hub_snapshot(cache / HUB_FOLDER, version)
    return found if found is not None and _is_model(found) else None


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _hub_snapshot(hub: Path, version: ModelVersion) -> Path | None:
    repository = hub / f"models--{version.source.replace('/', '--')}"
    name = version.revision or "main"
    try:
        commit = (repository / "refs" / name).read_text().strip()
    except OSError:
        commit = name
    snapshot = repository / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None
