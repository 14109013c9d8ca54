"""Finds a model's folder: an absolute path, a name under the model cache, or a download from the Hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from tqdm import tqdm

from models_hub.engine.errors import ModelNotReadyError
from models_hub.engine.options import ModelSource

HUB_FOLDER = "hub"
# Without a Hub, a model that only the Hub has is refused in seconds.
HUB_SECONDS = 5.0
# Never pickles, never code.
WANTED_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
ShareDone = Callable[[float], None]


def find_folder(source: ModelSource, cache_dir: Path, *, token: str, share_done: ShareDone) -> Path:
    """Blocks, for a download maybe long. Raises `ModelNotReadyError`."""
    name = source.path_or_hub_id
    folder = Path(name) if Path(name).is_absolute() else cache_dir / name
    if folder.is_dir() and (Path(name).is_absolute() or folder.resolve().is_relative_to(cache_dir.resolve())):
        return _checked(folder)
    if Path(name).is_absolute():
        raise ModelNotReadyError(f"The model's folder {name} does not exist.")
    if not _looks_like_hub_id(name):
        raise ModelNotReadyError(f"There is no folder {name} in the model cache, and it is no Hub id either.")
    return _checked(_download(source, cache_dir, token, share_done))


def _looks_like_hub_id(name: str) -> bool:
    """`owner/name`, or one of the few old names without an owner, which hold no dot-dot and at most one slash."""
    return name.count("/") <= 1 and not name.startswith((".", "/")) and ".." not in name


def _checked(folder: Path) -> Path:
    if not any(folder.glob("*.safetensors")):
        raise ModelNotReadyError(f"{folder.name} holds no safetensors weights; other formats are not loaded.")
    return folder


def _download(source: ModelSource, cache_dir: Path, token: str, share_done: ShareDone) -> Path:
    name = source.path_or_hub_id
    try:
        path = snapshot_download(
            name,
            revision=source.revision or None,
            cache_dir=cache_dir / HUB_FOLDER,
            allow_patterns=WANTED_FILES,
            token=token or None,
            etag_timeout=HUB_SECONDS,
            tqdm_class=_progress_class(share_done),
        )
    except HFValidationError as error:
        raise ModelNotReadyError(f"{name!r} is neither a folder in the model cache nor a Hub id.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        raise ModelNotReadyError(f"The Hugging Face Hub refused {name} (status {status}).") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.HTTPError, OSError) as error:
        reason = "it is not on this machine, and the Hugging Face Hub cannot be reached"
        raise ModelNotReadyError(f"{name} cannot be loaded: {reason}.") from error
    return Path(path)


def _progress_class(share_done: ShareDone) -> type[tqdm]:
    class Progress(tqdm):
        """Says how much is there, and prints nothing."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["disable"] = False
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "gui": True})

        def display(self, *_args: Any, **_kwargs: Any) -> None:
            if self.total:
                share_done(min(1.0, self.n / self.total))

    return Progress
