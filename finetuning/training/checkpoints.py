"""Checkpoints of a run: trained weights, optimizer state and position, as safetensors and JSON, hashed. No pickles."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from finetuning.training.errors import BrokenCheckpointError, DiskError, ResumeMismatchError

MANIFEST = "manifest.json"
WEIGHTS = "trained.safetensors"
OPTIMIZER = "optimizer.safetensors"
BEST = "best"


@dataclass
class LoopState:
    """Where a run is. With the seed it determines everything that follows: batches, learning rates, dropout."""

    step: int = 0
    evaluated_step: int = -1
    best_step: int = 0
    best_score: float | None = None
    evaluations_since_best: int = 0
    last_loss: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    precision: str = ""
    evaluations: list[dict[str, Any]] = field(default_factory=list)


class CheckpointStore:
    """The checkpoints of one run in one folder. `fingerprint` (names to hashes) must match when it is resumed.

    Writes into a temporary folder and renames it: a process killed at any moment leaves the former checkpoint whole.
    """

    def __init__(self, folder: Path, *, fingerprint: Mapping[str, str], keep: int = 2) -> None:
        self.folder = folder
        self._fingerprint = dict(fingerprint)
        self._keep = keep

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: LoopState) -> None:
        """Raises `DiskError`."""
        tensors = {WEIGHTS: trained_tensors(model), OPTIMIZER: _optimizer_tensors(model, optimizer)}
        self._write(f"step-{state.step:08d}", tensors, asdict(state))
        for old in self._checkpoints()[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)

    def save_best(self, model: nn.Module, state: LoopState) -> None:
        self._write(BEST, {WEIGHTS: trained_tensors(model)}, {"step": state.step, "score": state.best_score})

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> LoopState | None:
        """Load the newest whole checkpoint into model and optimizer; None when there is none.

        Raises `ResumeMismatchError`, or `BrokenCheckpointError` when checkpoints are there but none is whole.
        """
        for unfinished in self.folder.glob(".*"):  # of a process that was killed while it wrote
            shutil.rmtree(unfinished, ignore_errors=True)
        checkpoints = self._checkpoints()
        for folder in reversed(checkpoints):
            manifest = _read_whole(folder)
            if manifest is None:
                continue
            self._compare(manifest["fingerprint"])
            _load_weights(model, folder)
            _load_optimizer(model, optimizer, load_file(folder / OPTIMIZER))
            return LoopState(**manifest["state"])
        if checkpoints:
            raise BrokenCheckpointError(f"None of the {len(checkpoints)} checkpoints in {self.folder.name} is whole.")
        return None

    def restore_best(self, model: nn.Module) -> None:
        folder = self.folder / BEST
        if _read_whole(folder) is None:
            raise BrokenCheckpointError("The best checkpoint is gone or broken.")
        _load_weights(model, folder)

    def peek(self) -> LoopState | None:
        """The state of the newest whole checkpoint, without loading it."""
        for folder in reversed(self._checkpoints()):
            manifest = _read_whole(folder)
            if manifest is not None:
                self._compare(manifest["fingerprint"])
                return LoopState(**manifest["state"])
        return None

    def _checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    def _compare(self, stored: dict[str, str]) -> None:
        names = sorted(stored.keys() | self._fingerprint.keys())
        changed = [name for name in names if stored.get(name) != self._fingerprint.get(name)]
        if changed:
            message = f"This run cannot be resumed: its {', '.join(changed)} changed since the checkpoint was written."
            raise ResumeMismatchError(message, changed=changed)

    def _write(self, name: str, tensors: Mapping[str, dict[str, torch.Tensor]], state: dict[str, Any]) -> None:
        # Not "step-...": a half-written folder is never taken for a checkpoint.
        fresh = self.folder / f".{name}.{os.getpid()}"
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            files = {}
            for file, content in tensors.items():
                save_file(content, fresh / file)
                files[file] = sha256_of(fresh / file)
            manifest = {"fingerprint": self._fingerprint, "state": state, "files": files}
            (fresh / MANIFEST).write_text(json.dumps(manifest))
            shutil.rmtree(self.folder / name, ignore_errors=True)
            fresh.rename(self.folder / name)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(fresh, ignore_errors=True)
            raise DiskError(f"The checkpoint could not be written: {error}") from error


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_whole(folder: Path) -> dict[str, Any] | None:
    """The manifest, when every file of the checkpoint still has its hash."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        whole = all(sha256_of(folder / name) == digest for name, digest in manifest["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    return manifest if whole else None


@torch.no_grad()
def _load_weights(model: nn.Module, folder: Path) -> None:
    stored = load_file(folder / WEIGHTS)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if stored.keys() != trained.keys():
        raise ResumeMismatchError("The checkpoint's weights are not those that this run trains.", changed=["weights"])
    for name, parameter in trained.items():
        parameter.copy_(stored[name])


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}|{key}": value.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, stored: dict[str, torch.Tensor]) -> None:
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for full_name, value in stored.items():
        name, _, key = full_name.rpartition("|")
        parameter = parameters[name]
        optimizer.state[parameter][key] = value.to(parameter.device)
