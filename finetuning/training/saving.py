"""Writes what a run gave: an adapter folder, or a whole model that the engine can load. With hashes, and read back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from finetuning.training.checkpoints import sha256_of
from finetuning.training.errors import DiskError
from finetuning.training.loading import BaseModel, load_base

MANIFEST = "manifest.json"
ROUNDING_SEED = 42
PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors")


def save_adapter(model: PeftModel, base: BaseModel, folder: Path, *, origin: dict[str, Any]) -> Path:
    """The LoRA weights, which fit only the base whose fingerprint the manifest names. Raises `DiskError`."""

    def write(target: Path) -> None:
        # The path of this machine's base says nothing elsewhere.
        model.peft_config[model.active_adapter].base_model_name_or_path = base.folder.name
        # "auto" would look for the base under its name, on the Hub too.
        model.save_pretrained(str(target), safe_serialization=True, save_embedding_layers=False)
        (target / "README.md").unlink(missing_ok=True)  # a form with nothing filled in
        base.tokenizer.save_pretrained(target)

    return _write_folder(folder, write, origin={**origin, "base_fingerprint": base.fingerprint})


def save_merged(
    base: BaseModel, adapter: Path, folder: Path, *, stop_token_ids: Iterable[int], origin: dict[str, Any]
) -> Path:
    """The base with the adapter folded in, computed in float32 and stored as the base was. Raises `DiskError`."""
    fresh = load_base(base.folder, AutoModelForCausalLM)
    model = PeftModel.from_pretrained(fresh.model, adapter).merge_and_unload(safe_merge=True)
    return save_model(model, base, folder, stop_token_ids=stop_token_ids, origin=origin)


def save_model(
    model: Any, base: BaseModel, folder: Path, *, origin: dict[str, Any], stop_token_ids: Iterable[int] = ()
) -> Path:
    """A whole model with tokenizer, chat template and stop tokens, read back before it is given its name.

    Raises `DiskError`, or `BaseModelError` when what was written lacks a weight.
    """
    stops = sorted(stop_token_ids)

    def write(target: Path) -> None:
        if stops:
            model.generation_config.eos_token_id = stops
            model.generation_config.pad_token_id = base.pad_token_id
        store_in(model, base.dtype).save_pretrained(target, safe_serialization=True)
        base.tokenizer.save_pretrained(target)
        load_base(target, type(model))

    return _write_folder(folder, write, origin={**origin, "base_fingerprint": base.fingerprint})


def store_in(model: Any, dtype: torch.dtype) -> Any:
    """The model in the format its base was stored in. In bf16 each weight is rounded up or down by chance, seeded.

    Most of what training adds to a bf16 weight is less than half of its last digit: rounded to the nearest, 71 % of a
    short LoRA's changes were gone (SmolLM2, held-out loss 1.21 instead of 1.04). By chance, they stay on average
    (1.04), and a weight that did not change stays what it was. Source: Gupta et al. 2015, stochastic rounding.
    """
    if dtype is torch.bfloat16:
        source = torch.Generator().manual_seed(ROUNDING_SEED)
        for parameter in model.parameters():
            parameter.data = _round_by_chance(parameter.data, source)
    return model.to(dtype)


def _round_by_chance(values: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    """Float32 with only the bits that bf16 has: the upper 16, after noise was added to the lower."""
    bits = values.detach().cpu().float().contiguous().view(torch.int32)
    noise = torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, generator=source)
    return ((bits + noise) & ~0xFFFF).view(torch.float32)


def package_versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in PACKAGES}


def _write_folder(folder: Path, write: Callable[[Path], None], *, origin: dict[str, Any]) -> Path:
    """Beside its place first, so that a folder with this name is always whole. Replaces an earlier one."""
    fresh = folder.with_name(f".{folder.name}.new")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        with torch.no_grad():
            write(fresh)
        files = {}
        for file in sorted(fresh.iterdir()):
            file.chmod(0o644)  # safetensors lets only the owner read
            files[file.name] = sha256_of(file)
        manifest = {"origin": {**origin, "packages": package_versions()}, "files": files}
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    except (OSError, SafetensorError) as error:
        raise DiskError(f"{folder.name} could not be written: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder
