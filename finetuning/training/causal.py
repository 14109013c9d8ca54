"""What all methods for causal models share: loading, LoRA, the loop with its fingerprint, and the result's folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from finetuning.training.answers import write_answers
from finetuning.training.checkpoints import CheckpointStore
from finetuning.training.errors import BaseModelError
from finetuning.training.events import Phase, Progress, SamplesWritten, ShouldStop, ignore, never
from finetuning.training.hyperparameters import FREE_ON_RESUME, Hyperparameters
from finetuning.training.loading import BaseModel, folder_fingerprint, load_base
from finetuning.training.loop import Objective, TrainingLoop, TrainingResult
from finetuning.training.memory import explained
from finetuning.training.precision import Precision, choose_device, choose_precision
from finetuning.training.rendering import ChatRenderer, Message, TrainingSequence
from finetuning.training.saving import save_adapter, save_merged, save_model

CHECKPOINTS = "checkpoints"
ADAPTER = "adapter"
MERGED = "model"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run is told beside data and hyperparameters. `folder` keeps its checkpoints and, in the end, its result.

    A run started again with the same arguments in the same folder goes on from its newest checkpoint.
    """

    folder: Path
    use_gpu: str = "auto"
    system_prompt: str = ""
    chat_template: str = ""
    sample_prompts: Sequence[Sequence[Message]] = ()
    sample_tokens: int = 64
    progress: Progress = ignore
    should_stop: ShouldStop = never


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
        return get_peft_model(base.model, config)
    except ValueError as error:
        raise BaseModelError(f"LoRA does not fit {base.folder.name}: {error}") from error


def _continue_adapter(base: BaseModel, adapter: Path) -> PeftModel:
    try:
        origin = json.loads((adapter / "manifest.json").read_text())["origin"]
    except (OSError, ValueError, KeyError) as error:
        raise BaseModelError(f"The adapter {adapter.name} has no manifest that names its base.") from error
    if origin["base_fingerprint"] != base.fingerprint:
        raise BaseModelError(f"The adapter {adapter.name} was trained on another base than {base.folder.name}.")
    return PeftModel.from_pretrained(base.model, adapter, is_trainable=True)


def run_loop(
    model: Any,
    objective: Objective,
    base: BaseModel,
    *,
    hyperparameters: Hyperparameters,
    options: RunOptions,
    fingerprint: dict[str, str],
    on_evaluation: Callable[[int, Precision], None] | None = None,
) -> TrainingResult:
    """Measure the precision (a resumed run keeps its own), then train. Raises what `errors.py` names."""
    values = {key: value for key, value in hyperparameters.to_dict().items() if key not in FREE_ON_RESUME}
    store = CheckpointStore(
        options.folder / CHECKPOINTS,
        fingerprint={**fingerprint, "base": base.fingerprint, "hyperparameters": digest(values)},
        keep=hyperparameters.save_total_limit,
    )
    if hyperparameters.gradient_checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    options.progress(Phase(name="measuring"))
    earlier = store.peek()
    asked = earlier.precision if earlier else hyperparameters.precision
    with explained(hyperparameters):
        work = _typical_work(model, objective, hyperparameters.per_device_train_batch_size)
        precision = choose_precision(asked, device=base.model.device.type, work=work)
    _store_frozen_as_loaded(model, base, precision)
    loop = TrainingLoop(
        model,
        objective,
        hyperparameters=hyperparameters,
        precision=precision,
        store=store,
        progress=options.progress,
        should_stop=options.should_stop,
        on_evaluation=(lambda step: on_evaluation(step, precision)) if on_evaluation else None,
    )
    return loop.run()


def sampler(model: Any, renderer: ChatRenderer, options: RunOptions) -> Callable[[int, Precision], None] | None:
    """Writes the sample answers at each evaluation; None when none are asked for."""
    if not options.sample_prompts:
        return None

    def write(step: int, precision: Precision) -> None:
        with precision.autocast():
            answers = write_answers(model, renderer, options.sample_prompts, max_new_tokens=options.sample_tokens)
        options.progress(SamplesWritten(step=step, answers=answers))

    return write


def save_result(
    model: Any, base: BaseModel, renderer: ChatRenderer, *, result: TrainingResult, options: RunOptions, **origin: Any
) -> dict[str, Path]:
    """The folders by name: `model`, which the engine loads, and for LoRA `adapter`. None for a run that was stopped."""
    if result.status == "stopped":
        return {}
    options.progress(Phase(name="saving"))
    about = {
        **origin,
        "base": base.folder.name,
        "template_hash": renderer.template_hash,
        "system_prompt": renderer.system_prompt,
        "result": result.to_dict(),
    }
    target, stops = options.folder / MERGED, renderer.stop_token_ids
    if not isinstance(model, PeftModel):
        return {MERGED: save_model(model, base, target, stop_token_ids=stops, origin=about)}
    adapter = save_adapter(model, base, options.folder / ADAPTER, origin=about)
    return {ADAPTER: adapter, MERGED: save_merged(base, adapter, target, stop_token_ids=stops, origin=about)}


def digest(value: Any) -> str:
    """SHA-256 of anything JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def data_digest(sequences: Iterable[TrainingSequence]) -> str:
    """SHA-256 of what is really trained on: ids and which of them are trained, in order."""
    total = hashlib.sha256()
    for sequence in sequences:
        total.update(np.int64(len(sequence)).tobytes())
        total.update(sequence.input_ids.tobytes())
        total.update(sequence.is_trained.tobytes())
    return total.hexdigest()


def adapter_digest(adapter: Path | None) -> str:
    return folder_fingerprint(adapter) if adapter else ""


def _typical_work(model: Any, objective: Objective, batch_size: int) -> Callable[[], None]:
    by_length = sorted(range(len(objective.lengths)), key=lambda row: objective.lengths[row])
    middle = max(0, (len(by_length) - batch_size) // 2)
    rows = by_length[middle : middle + batch_size]

    def work() -> None:
        model.train()
        (objective.loss(rows) / objective.units(rows)).backward()
        model.zero_grad()

    return work


def _store_frozen_as_loaded(model: Any, base: BaseModel, precision: Precision) -> None:
    """Frozen weights that came as bf16 lose nothing in bf16, and need not be cast in every step (1.75 s, not 2.05)."""
    if precision.name == "bfloat16" and base.dtype is torch.bfloat16:
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
