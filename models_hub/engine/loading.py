"""Loads a model's folder for its task. What is not whole and safe is refused: nothing is ever filled in at random."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from models_hub.engine.errors import ModelNotReadyError
from models_hub.engine.options import Task

AUTO_CLASSES = {
    Task.CHAT: AutoModelForCausalLM,
    Task.CLASSIFICATION: AutoModelForSequenceClassification,
    Task.FILL_MASK: AutoModelForMaskedLM,
}
# Everything from_pretrained was seen to raise for a folder that is broken, foreign, or wants to run its own code.
LOAD_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError)
MAX_NAMES_SHOWN = 3


@dataclass(frozen=True)
class LoadedFolder:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def bytes(self) -> int:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def load_folder(folder: Path, task: Task, *, device: str, dtype: torch.dtype) -> LoadedFolder:
    """Blocks for seconds. Raises `ModelNotReadyError` with the reason."""
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model, info = AUTO_CLASSES[task].from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            # Said here, it wins over what the folder's config may name.
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except LOAD_ERRORS as error:
        raise ModelNotReadyError(f"{folder.name} could not be loaded: {type(error).__name__}: {error}") from error
    _refuse_incomplete(folder, info)
    return LoadedFolder(model.eval().requires_grad_(False).to(device), tokenizer)


def _refuse_incomplete(folder: Path, info: dict[str, Any]) -> None:
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info.get("mismatched_keys", ()))
    if missing:
        names = ", ".join(missing[:MAX_NAMES_SHOWN]) + (", ..." if len(missing) > MAX_NAMES_SHOWN else "")
        message = (
            f"{folder.name} lacks trained weights for its task ({names}). It must be fine-tuned before it can answer."
        )
        raise ModelNotReadyError(message)


def estimate_bytes(folder: Path, dtype: torch.dtype) -> int:
    """What the weights will take, from the headers of their files. Raises `ModelNotReadyError`."""
    try:
        return sum(_count_numbers(file) for file in folder.glob("*.safetensors")) * dtype.itemsize
    except (OSError, SafetensorError) as error:
        raise ModelNotReadyError(f"{folder.name} could not be loaded: {error}") from error


def _count_numbers(file: Path) -> int:
    with safe_open(file, framework="pt") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118 - no dict


def stop_token_ids(loaded: LoadedFolder) -> frozenset[int]:
    """All tokens that end a turn: what the generation config, the model's config and the tokenizer say."""
    generation: GenerationConfig = loaded.model.generation_config
    said = [generation.eos_token_id, getattr(loaded.model.config, "eos_token_id", None), loaded.tokenizer.eos_token_id]
    ids: set[int] = set()
    for value in said:
        ids.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
    return frozenset(ids)


def context_window(loaded: LoadedFolder) -> int:
    config = loaded.model.config.get_text_config()
    window = getattr(config, "max_position_embeddings", None) or 2048
    # RoBERTa counts positions from its padding index; its tokenizer knows the true length. Absent, it says 1e30.
    return min(window, loaded.tokenizer.model_max_length)


def cache_bytes_per_token(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * head_size * model.dtype.itemsize
