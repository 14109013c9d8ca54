"""What all methods for causal models share: loading, LoRA, sample answers, and the result's folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from finetuning.training.adapters import rounding_once
from finetuning.training.answers import write_answers
from finetuning.training.errors import BaseModelError
from finetuning.training.events import Phase, SamplesWritten
from finetuning.training.hyperparameters import Hyperparameters
from finetuning.training.loading import BaseModel, folder_fingerprint, load_base
from finetuning.training.loop import TrainingResult
from finetuning.training.parallel import current
from finetuning.training.precision import Precision, choose_device
from finetuning.training.rendering import ChatRenderer, TrainingSequence
from finetuning.training.runs import MERGED, Run, RunOptions, run_loop
from finetuning.training.saving import save_adapter, save_merged, save_model

ADAPTER = "adapter"


def load_causal(folder: Path, options: RunOptions) -> tuple[BaseModel, ChatRenderer]:
    """The base and the renderer of its conversations. Raises `BaseModelError` or `TemplateError`."""
    options.progress(Phase(name="loading"))
    base = load_base(folder, AutoModelForCausalLM, device=choose_device(options.use_gpu))
    renderer = ChatRenderer(
        base.tokenizer,
        stop_token_ids=sorted(base.stop_token_ids),
        system_prompt=options.system_prompt,
        chat_template=options.chat_template,
    )
    return base, renderer


def attach_lora(base: BaseModel, hyperparameters: Hyperparameters, *, adapter: Path | None = None) -> PeftModel:
    """A fresh adapter, seeded, or an earlier one to train on. Raises `BaseModelError` when it does not fit."""
    if adapter is not None:
        return _continue_adapter(base, adapter)
    modules = hyperparameters.target_modules
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=hyperparameters.lora_r,
        lora_alpha=hyperparameters.lora_alpha,
        lora_dropout=hyperparameters.lora_dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
    )
    torch.manual_seed(hyperparameters.seed)
    try:
        return get_peft_model(base.model, rounding_once(config))
    except ValueError as error:
        raise BaseModelError(f"LoRA does not fit {base.folder.name}: {error}") from error


def _continue_adapter(base: BaseModel, adapter: Path) -> PeftModel:
    try:
        origin = json.loads((adapter / "manifest.json").read_text())["origin"]
    except (OSError, ValueError, KeyError) as error:
        raise BaseModelError(f"The adapter {adapter.name} has no manifest that names its base.") from error
    if origin["base_fingerprint"] != base.fingerprint:
        raise BaseModelError(f"The adapter {adapter.name} was trained on another base than {base.folder.name}.")
    config = rounding_once(LoraConfig.from_pretrained(adapter))
    return PeftModel.from_pretrained(base.model, adapter, is_trainable=True, config=config)


def sampler(
    model: Any, renderer: ChatRenderer, options: RunOptions, *, batch_size: int
) -> Callable[[int, Precision], None] | None:
    """Writes the sample answers at each evaluation; None when none are asked for."""
    if not options.sample_prompts:
        return None

    def write(step: int, precision: Precision) -> None:
        with precision.autocast():
            answers = write_answers(
                model,
                renderer,
                options.sample_prompts,
                max_new_tokens=options.sample_tokens,
                batch_size=batch_size,
                should_stop=options.should_stop,
            )
        if options.should_stop():  # cut off in the middle
            return
        options.progress(SamplesWritten(step=step, answers=answers))

    return write


def causal_identity(renderer: ChatRenderer, adapter: Path | None) -> dict[str, str]:
    return {"template": renderer.template_hash, "adapter": folder_fingerprint(adapter) if adapter else ""}


def train_causal(run: Run, renderer: ChatRenderer, options: RunOptions) -> tuple[TrainingResult, dict[str, Path]]:
    """The loop with sample answers, then the folders by name: `model`, which the engine loads, and for LoRA `adapter`.

    There are none for a run that was stopped. Raises what `errors.py` names.
    """
    batch_size = run.hyperparameters.per_device_eval_batch_size
    result = run_loop(run, options, on_evaluation=sampler(run.model, renderer, options, batch_size=batch_size))
    if result.status == "stopped" or not current().is_main:
        return result, {}
    options.progress(Phase(name="saving"))
    about = {
        **run.origin,
        "template_hash": renderer.template_hash,
        "system_prompt": renderer.system_prompt,
        "result": result.to_dict(),
    }
    target, stops = options.folder / MERGED, renderer.stop_token_ids
    if not isinstance(run.model, PeftModel):
        return result, {MERGED: save_model(run.model, run.base, target, stop_token_ids=stops, origin=about)}
    adapter = save_adapter(run.model, run.base, options.folder / ADAPTER, origin=about)
    merged = save_merged(run.base, adapter, target, stop_token_ids=stops, origin=about)
    return result, {ADAPTER: adapter, MERGED: merged}


def data_digest(sequences: Iterable[TrainingSequence]) -> str:
    """SHA-256 of what is really trained on: ids and which of them are trained, in order."""
    total = hashlib.sha256()
    for sequence in sequences:
        total.update(np.int64(len(sequence)).tobytes())
        total.update(sequence.input_ids.tobytes())
        total.update(sequence.is_trained.tobytes())
    return total.hexdigest()
