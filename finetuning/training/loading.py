"""Loads a base model from a folder for training. Safetensors only, no code of the model's, and no weight by chance."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from finetuning.training.checkpoints import sha256_of
from finetuning.training.errors import BaseModelError

# Everything from_pretrained was seen to raise for a folder that is broken, foreign, or wants to run its own code.
LOAD_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError)
MAX_NAMES_SHOWN = 3


@dataclass(frozen=True)
class BaseModel:
    """`dtype` is what the folder's weights are stored in; `model` holds them in float32. `fingerprint` is a SHA-256."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    folder: Path
    dtype: torch.dtype
    fingerprint: str

    @property
    def context_window(self) -> int:
        window = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 2048
        # RoBERTa counts positions from its padding index; its tokenizer knows the true length. Absent, it says 1e30.
        return min(window, self.tokenizer.model_max_length)

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """What the generation config, the model's config and the tokenizer say ends a turn."""
        generation = getattr(self.model, "generation_config", None)
        said = [getattr(generation, "eos_token_id", None), getattr(self.model.config, "eos_token_id", None)]
        ids: set[int] = set()
        for value in (*said, self.tokenizer.eos_token_id):
            ids.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
        return frozenset(ids)

    @property
    def pad_token_id(self) -> int:
        """Any id will do: padding is known by length."""
        return self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0


def load_base(
    folder: Path, auto_class: Any, *, device: str = "cpu", fresh: tuple[str, ...] = (), **config: Any
) -> BaseModel:
    """`fresh` names the parts (prefixes) that may be new and must then be trained: a classifier's head.

    `config` overrides the model's config. Blocks for seconds. Raises `BaseModelError` with the reason.
    """
    transformers.utils.logging.disable_progress_bar()
    try:
        stored = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model, info = auto_class.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            attn_implementation="sdpa",
            output_loading_info=True,
            **config,
        )
        fingerprint = folder_fingerprint(folder)
    except LOAD_ERRORS as error:
        raise BaseModelError(f"{folder.name} could not be loaded: {type(error).__name__}: {error}") from error
    _refuse_incomplete(folder, info, fresh)
    dtype = stored.dtype if isinstance(stored.dtype, torch.dtype) else torch.float32
    return BaseModel(model.to(device), tokenizer, folder, dtype, fingerprint)


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 over the hashes of configs and weights: the same files give the same value, wherever they are."""
    files = sorted([*folder.glob("*config.json"), *folder.glob("*.safetensors")])
    return hashlib.sha256("".join(f"{file.name}:{sha256_of(file)};" for file in files).encode()).hexdigest()


def _refuse_incomplete(folder: Path, info: dict[str, Any], fresh: tuple[str, ...]) -> None:
    missing = {*info["missing_keys"], *(key[0] for key in info.get("mismatched_keys", ()))}
    lacking = sorted(name for name in missing if not name.startswith(fresh))
    if lacking:
        names = ", ".join(lacking[:MAX_NAMES_SHOWN]) + (", ..." if len(lacking) > MAX_NAMES_SHOWN else "")
        raise BaseModelError(f"{folder.name} lacks weights that this training needs ({names}).", missing=lacking)
