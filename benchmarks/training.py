"""Tokens a second of LoRA fine-tuning, beside a bare PyTorch loop and TRL's SFTTrainer in the same run.

    python -m benchmarks.training [--quick] [--models FOLDER] [--rounds 3] [--part speed|chat|all]

The same rows in the same order, the same first weights, SmolLM2 in bfloat16. Every round lets each of them work once,
and who begins changes; the table shows medians over the rounds, of seconds on the clock and of seconds of CPU time
(which a busy machine disturbs less). The losses of all must agree. Aims: at least 0.95 of the bare loop with full
labels, ahead of it with loss on the answers only, 1.8 times TRL. `chat`: first tokens beside a training.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.conversations import conversation
from finetuning.training.environment import CHILD_ENVIRONMENT

os.environ.update(CHILD_ENVIRONMENT)  # before PyTorch is imported, and for all contestants alike

MODEL = "smollm2-135m-instruct"
ROWS = 64
LEARNING_RATE = 2e-4
# What losses may differ by when the same numbers are added in another order, in bfloat16.
LOSS_NOISE = 0.02


@dataclass(frozen=True)
class Workload:
    batch: int
    tokens: int
    steps: int

    def __str__(self) -> str:
        return f"{self.batch} x {self.tokens}"


@dataclass
class Measured:
    """Of the steps after the first one, which is still warming up. `losses` are those of all steps."""

    tokens: int
    seconds: float
    cpu_seconds: float
    losses: list[float]


class StopWatch:
    """Told of the end of every step; what the first one took does not count."""

    def __init__(self) -> None:
        self._ends: list[tuple[float, float]] = []
        self.losses: list[float] = []

    def step(self, loss: float) -> None:
        self._ends.append((time.perf_counter(), time.process_time()))
        self.losses.append(loss)

    def read(self, workload: Workload) -> Measured:
        seconds, cpu = (last - first for first, last in zip(self._ends[0], self._ends[-1], strict=True))
        return Measured(workload.batch * workload.tokens * (len(self._ends) - 1), seconds, cpu, self.losses)


@dataclass
class Task:
    """What all contestants are given: the model's folder and the rows in the order in which they come."""

    folder: Path
    workload: Workload
    sequences: list[Any] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return self.workload.steps + 1


def build_task(folder: Path, workload: Workload, *, trains_all: bool) -> Task:
    """Rows of exactly so many tokens; with `trains_all` the questions are learned too, as pretraining does."""
    import numpy as np
    from transformers import AutoTokenizer

    from finetuning.training.batching import BatchOrder
    from finetuning.training.rendering import ChatRenderer, TrainingSequence

    renderer = ChatRenderer(AutoTokenizer.from_pretrained(folder))
    rows = [renderer.render(conversation(number))[0].cut_right(workload.tokens) for number in range(ROWS)]
    if trains_all:
        everything = np.arange(workload.tokens) > 0
        rows = [TrainingSequence(row.input_ids, everything) for row in rows]
    order = BatchOrder([workload.tokens] * ROWS, batch_size=workload.batch, seed=hyperparameters(workload).seed)
    task = Task(folder, workload)
    steps = range(task.steps)
    task.sequences = [rows[row] for step in steps for batch in order.batches(step) for row in batch]
    return task


def hyperparameters(workload: Workload) -> Any:
    from finetuning.training.hyperparameters import Hyperparameters

    return Hyperparameters(
        per_device_train_batch_size=workload.batch,
        gradient_accumulation_steps=1,
        max_steps=workload.steps + 1,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        warmup_steps=0,
        precision="bfloat16",
        save_seconds=3600,
    )


def lora_config(workload: Workload) -> Any:
    """With our LoRA layer for all: peft's own rounds twice, and the losses would not be the same."""
    from peft import LoraConfig

    from finetuning.training.adapters import rounding_once

    values = hyperparameters(workload)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=values.lora_r, lora_alpha=values.lora_alpha, target_modules=values.target_modules
    )
    return rounding_once(config)


def run_ours(task: Task) -> Measured:
    """The loop as a job runs it, with its events, from the end of the first step to the end of the last."""
    from finetuning.training.causal import attach_lora, load_causal
    from finetuning.training.events import Event, StepDone
    from finetuning.training.hyperparameters import Method
    from finetuning.training.runs import Run, RunOptions, run_loop
    from finetuning.training.sft import SftObjective

    watch = StopWatch()

    def progress(event: Event) -> None:
        if isinstance(event, StepDone):
            watch.step(event.loss)

    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(folder=Path(folder), use_gpu="false", progress=progress)
        base, _ = load_causal(task.folder, options)
        values = hyperparameters(task.workload)
        model = attach_lora(base, values)
        objective = InOrder(
            SftObjective(model, task.sequences, pad_token_id=base.pad_token_id, eval_batch_size=1), task.workload.batch
        )
        run = Run(
            method=Method.LORA_SFT,
            model=model,
            objective=objective,
            base=base,
            hyperparameters=values,
            data="benchmark",
        )
        run_loop(run, options)
    return watch.read(task.workload)


class InOrder:
    """Our objective with the rows numbered anew, so that the loop's own order gives them as everybody has them."""

    def __init__(self, objective: Any, batch: int) -> None:
        from finetuning.training.batching import BatchOrder

        self._objective = objective
        self.lengths = objective.lengths
        self.evaluation_tokens = 0
        self.prepare, self.evaluate, self.begin_step = objective.prepare, objective.evaluate, objective.begin_step
        order = BatchOrder(self.lengths, batch_size=batch, seed=42)
        given = [row for step in range(order.steps_per_epoch) for rows in order.batches(step) for row in rows]
        self._place = {row: place for place, row in enumerate(given)}

    def units(self, rows: list[int]) -> int:
        return self._objective.units([self._place[row] for row in rows])

    def loss(self, rows: list[int]) -> Any:
        return self._objective.loss([self._place[row] for row in rows])


def run_bare(task: Task) -> Measured:
    """What one would write by hand: adapters in float32 on frozen weights in bfloat16, under autocast."""
    import numpy as np
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(task.folder, dtype=torch.bfloat16, attn_implementation="sdpa")
    torch.manual_seed(hyperparameters(task.workload).seed)
    model = get_peft_model(model, lora_config(task.workload)).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    watch, size = StopWatch(), task.workload.batch
    for start in range(0, len(task.sequences), size):
        rows = task.sequences[start : start + size]
        ids = torch.from_numpy(np.stack([row.input_ids for row in rows]).astype(np.int64))
        labels = torch.from_numpy(np.stack([row.labels for row in rows]).astype(np.int64))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        watch.step(loss.item())
    return watch.read(task.workload)


def run_trl(task: Task, *, is_tuned: bool = False) -> Measured:
    """SFTTrainer as it comes; or told what else makes it faster: no checkpointing, weights kept in bfloat16."""
    import transformers
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    watch = StopWatch()

    class Follow(transformers.TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "loss" in logs:
                watch.step(float(logs["loss"]))

    dataset = Dataset.from_dict(
        {
            "input_ids": [row.input_ids.tolist() for row in task.sequences],
            "labels": [row.labels.tolist() for row in task.sequences],
        }
    )
    faster = {"gradient_checkpointing": False, "model_init_kwargs": {"dtype": "bfloat16"}} if is_tuned else {}
    values = hyperparameters(task.workload)
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=task.workload.batch,
            gradient_accumulation_steps=1,
            max_steps=task.steps,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            max_grad_norm=values.max_grad_norm,
            train_sampling_strategy="sequential",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            report_to=[],
            use_cpu=True,
            seed=values.seed,
            **faster,
        )
        trainer = SFTTrainer(
            model=str(task.folder),
            args=config,
            train_dataset=dataset,
            peft_config=lora_config(task.workload),
            callbacks=[Follow()],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return watch.read(task.workload)


@dataclass(frozen=True)
class Contestant:
    name: str
    run: Callable[[Task], Measured]
    trains_all: bool


BARE_ALL, OURS_ALL = "bare loop, all tokens", "ours, all tokens"
BARE, OURS, TRL, FAST_TRL = "bare loop, answers", "ours, answers", "TRL, answers", "TRL without checkpointing"
CONTESTANTS = (
    Contestant(BARE_ALL, run_bare, True),
    Contestant(OURS_ALL, run_ours, True),
    Contestant(BARE, run_bare, False),
    Contestant(OURS, run_ours, False),
    Contestant(TRL, run_trl, False),
    Contestant(FAST_TRL, lambda task: run_trl(task, is_tuned=True), False),
)
# Ours, whom it is compared with, and the aim.
AIMS = ((OURS_ALL, BARE_ALL, 0.95), (OURS, BARE, 1.0), (OURS, TRL, 1.8), (OURS, FAST_TRL, None))


def compare(folder: Path, workload: Workload, rounds: int) -> bool:
    """Prints the table; whether the losses agree and every aim is met."""
    tasks = {trains_all: build_task(folder, workload, trains_all=trains_all) for trains_all in (True, False)}
    answers = tasks[False].sequences
    share = sum(row.trained_tokens for row in answers) / sum(map(len, answers))
    print(f"\n{workload} tokens, {share:.0%} of them in answers, {rounds} rounds of {workload.steps} steps")
    results: dict[str, list[Measured]] = {contestant.name: [] for contestant in CONTESTANTS}
    for number in range(rounds):
        shift = number % len(CONTESTANTS)
        for contestant in (*CONTESTANTS[shift:], *CONTESTANTS[:shift]):
            results[contestant.name].append(contestant.run(tasks[contestant.trains_all]))
    print(f"{'':<28}{'tokens/s':>10}{'tokens/CPU s':>14}{'last loss':>11}")
    for name, measured in results.items():
        rate = statistics.median(m.tokens / m.seconds for m in measured)
        cpu_rate = statistics.median(m.tokens / m.cpu_seconds for m in measured)
        print(f"{name:<28}{rate:>10.0f}{cpu_rate:>14.0f}{measured[-1].losses[-1]:>11.4f}", flush=True)
    verdicts = [judge(results, *aim) for aim in AIMS]
    return all(verdicts)


def judge(results: dict[str, list[Measured]], ours: str, other: str, aim: float | None) -> bool:
    pairs = list(zip(results[ours], results[other], strict=True))
    ratio = statistics.median(them.seconds / us.seconds for us, them in pairs)
    cpu_ratio = statistics.median(them.cpu_seconds / us.cpu_seconds for us, them in pairs)
    apart = max(abs(a / b - 1) for us, them in pairs for a, b in zip(us.losses, them.losses, strict=True))
    wanted = f", aim {aim}" if aim else ""
    print(f"{ours} / {other}: {ratio:.2f} (CPU time {cpu_ratio:.2f}{wanted}); losses differ by {apart:.1%} at most")
    return apart < LOSS_NOISE and (aim is None or ratio >= aim)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("model_cache"), help="a folder with the starter models")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one small workload, two short rounds, fewer questions")
    parser.add_argument("--part", choices=("speed", "chat", "all"), default="all")
    args = parser.parse_args()
    from models_hub.starter import import_starter_models

    import_starter_models(args.models)
    folder = (args.models / MODEL).resolve()
    is_good = True
    if args.part != "chat":
        workloads = [Workload(4, 128, 3)] if args.quick else [Workload(4, 128, 6), Workload(8, 256, 3)]
        for workload in workloads:
            is_good &= compare(folder, workload, 2 if args.quick else args.rounds)
    if args.part != "speed":
        from benchmarks.training_beside_chat import measure

        is_good &= asyncio.run(measure(folder, questions=5 if args.quick else 20))
    print("\nEvery aim is met." if is_good else "\nAn aim is missed.")


if __name__ == "__main__":
    main()
