"""The folders of a trained version: which are its own, and all of one as a zip file that is made while it is sent."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from chat.errors import InvalidError, NotFoundError
from config.app_settings import get_settings
from finetuning.models import Lineage
from models_hub.models import ModelVersion

MERGED, ADAPTER = "merged", "adapter"
CHUNK_BYTES = 1024 * 1024
CARD, MANIFEST = "README.md", "manifest.json"


def own_folders(version: ModelVersion) -> list[Path]:
    """What training made for this version alone; nothing of a folder that setup or an admin brought."""
    own = f"{version.model.slug}/{version.number}"
    if version.source != own:
        return []
    folders = [_in_cache(own), _in_cache(f"{own}-{ADAPTER}")]
    return [folder for folder in folders if folder is not None]


def exported_parts(version: ModelVersion) -> list[str]:
    """Which parts there are to export."""
    return [part for part in (MERGED, ADAPTER) if _folder_of(version, part) is not None]


def export_version(version: ModelVersion, *, part: str = MERGED) -> Iterator[bytes]:
    """A zip file with the weights, the manifest and the model card, a piece at a time.

    Blocks while it reads. Raises NotFoundError at once when there are no such files here.
    """
    if part not in (MERGED, ADAPTER):
        raise InvalidError("part is merged (the whole model) or adapter (what training added to its base).")
    folder = _folder_of(version, part)
    if folder is None:
        what = "an adapter" if part == ADAPTER else "its files"
        raise NotFoundError(f"There is nothing to export: {version} does not have {what} on this machine.")
    return _zip(folder, export_name(version, part), _texts(version, folder))


def export_name(version: ModelVersion, part: str) -> str:
    """Without an ending; also the name of the folder inside."""
    slug = version.model.slug.replace("/", "-")
    return f"{slug}-{version.number}" + (f"-{ADAPTER}" if part == ADAPTER else "")


def _folder_of(version: ModelVersion, part: str) -> Path | None:
    lineage = Lineage.objects.filter(version=version).only("adapter_folder").first()
    adapter = lineage.adapter_folder if lineage else ""
    folder = _in_cache(version.source if part == MERGED else adapter)
    return folder if folder and any(folder.glob("*.safetensors")) else None


def _in_cache(name: str) -> Path | None:
    """The folder under MODEL_CACHE_DIR, or None: not there, or not under it."""
    cache = get_settings().model_cache_dir.resolve()
    folder = (cache / name).resolve()
    return folder if name and folder.is_dir() and folder != cache and folder.is_relative_to(cache) else None


def _texts(version: ModelVersion, folder: Path) -> dict[str, str]:
    """Files out of the database; what the folder has itself is not written again, the card apart."""
    texts = {}
    if not (folder / MANIFEST).is_file():
        texts[MANIFEST] = json.dumps(version.manifest, indent=2) + "\n"
    lineage = Lineage.objects.filter(version=version).only("card").first()
    if lineage and lineage.card:
        texts[CARD] = lineage.card
    return texts


class _Outbox(io.RawIOBase):
    """What the zip writer has written and nobody has sent yet."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def _zip(folder: Path, name: str, texts: dict[str, str]) -> Iterator[bytes]:
    """Stored, not compressed: weights do not shrink, and a slow machine would be busy for minutes."""
    outbox = _Outbox()
    with zipfile.ZipFile(outbox, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.iterdir()):
            if file.is_symlink() or not file.is_file() or file.name.startswith(".") or file.name in texts:
                continue
            yield from _zip_file(archive, outbox, file, f"{name}/{file.name}")
        for file_name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(f"{name}/{file_name}", time.localtime()[:6]), text)
    yield outbox.take()


def _zip_file(archive: zipfile.ZipFile, outbox: _Outbox, file: Path, name: str) -> Iterator[bytes]:
    info = zipfile.ZipInfo.from_file(file, name, strict_timestamps=False)
    with file.open("rb") as source, archive.open(info, "w") as target:
        while piece := source.read(CHUNK_BYTES):
            target.write(piece)
            yield outbox.take()
