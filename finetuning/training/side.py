"""One causal model, base or tuned, on held-out rows, on general texts and in its answers. The model itself goes."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from finetuning.training.answers import stop_rate, write_answers
from finetuning.training.batching import split_by_length
from finetuning.training.causal import load_causal
from finetuning.training.errors import ConversationError, DataError
from finetuning.training.events import Answer
from finetuning.training.general import general_sequences, load_general_texts
from finetuning.training.hyperparameters import Hyperparameters, Method
from finetuning.training.labels import prepare_conversations
from finetuning.training.loading import BaseModel
from finetuning.training.memory import explained
from finetuning.training.precision import Precision, choose_precision
from finetuning.training.preferences import Answers, PreferencePair, RatedAnswer, render_rows
from finetuning.training.rendering import ChatRenderer, Message, TrainingSequence
from finetuning.training.runs import RunOptions
from finetuning.training.sft import SftObjective
from finetuning.training.specs import Spec

MAX_HELD_OUT, MAX_HELD_OUT_PROMPTS = 300, 4
MEASURED_TEXTS = 8
ANSWER_TOKENS = 128
FIXED, HELD_OUT = "fixed", "held out"
Prompt = tuple[Sequence[Message], str]


@dataclass
class Side:
    """`answers` by the number of the prompt; `log_probabilities` by held-out row, of each of its answers."""

    metrics: dict[str, Any] = field(default_factory=dict)
    general: dict[str, Any] = field(default_factory=dict)
    prompts: list[Prompt] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)
    log_probabilities: dict[int, list[float]] = field(default_factory=dict)
    precision: Precision | None = None

    @property
    def stop_rate(self) -> float | None:
        return stop_rate(list(self.answers.values())) if self.answers else None


def sample_rows(rows: list[Any], *, seed: int) -> list[Any]:
    """All rows, or the same few hundred each time: more would take long and say the same."""
    if len(rows) <= MAX_HELD_OUT:
        return rows
    return random.Random(seed).sample(rows, MAX_HELD_OUT)  # noqa: S311 - a choice of rows, not a secret


@torch.no_grad()
def look_at_side(
    spec: Spec,
    folder: Path,
    options: RunOptions,
    values: Hyperparameters,
    items: Sequence[Any],
    *,
    precision: Precision | None = None,
) -> Side:
    """Without a `precision` the faster one is taken: two sides must have the same. Raises what `errors.py` names."""
    side = Side()
    with explained(values, is_evaluation=True):
        base, renderer = load_causal(folder, options)
        base.model.eval()
        side.precision = precision or _faster_precision(base, renderer, options, values)
        with side.precision.autocast():
            if spec.method in (Method.DPO, Method.KTO):
                side.log_probabilities = _log_probabilities(base, renderer, options, values, items)
            elif items:
                side.metrics = _held_out_metrics(base, renderer, options, values, items)
            side.general = _general_metrics(base, renderer, options, values)
        side.prompts = _prompts(spec, items)
        side.answers = _answers(base, renderer, options, values, side.prompts)
    return side


def _faster_precision(
    base: BaseModel, renderer: ChatRenderer, options: RunOptions, values: Hyperparameters
) -> Precision:
    texts = general_sequences(renderer)[0][:MEASURED_TEXTS]

    def work() -> None:
        _loss(base, texts, options, values)

    return choose_precision(values.precision, device=base.model.device.type, work=work)


def _held_out_metrics(
    base: BaseModel, renderer: ChatRenderer, options: RunOptions, values: Hyperparameters, items: Sequence[Any]
) -> dict[str, Any]:
    """Loss and perplexity on the answers; nothing when no row can be rendered."""
    try:
        prepared = prepare_conversations(
            items, renderer, context_window=base.context_window, max_length=values.max_length or base.context_window
        )
    except DataError:
        return {}
    return {
        **_loss(base, prepared.sequences, options, values),
        "rows": len(set(prepared.rows)),
        "tokens": prepared.report.trained_tokens,
    }


def _general_metrics(
    base: BaseModel, renderer: ChatRenderer, options: RunOptions, values: Hyperparameters
) -> dict[str, Any]:
    """Without the version's system prompt: what the model itself still knows."""
    plain = ChatRenderer(base.tokenizer, stop_token_ids=sorted(renderer.stop_token_ids))
    sentences, answered = general_sequences(plain)
    whole = _loss(base, [*sentences, *answered], options, values)
    return {
        "loss": whole["eval_loss"],
        "perplexity": whole["perplexity"],
        "sentence_perplexity": _loss(base, sentences, options, values)["perplexity"],
        "texts": len(sentences) + len(answered),
    }


def _loss(
    base: BaseModel, sequences: Sequence[TrainingSequence], options: RunOptions, values: Hyperparameters
) -> dict[str, float]:
    objective = SftObjective(
        base.model,
        (),
        held_out=sequences,
        pad_token_id=base.pad_token_id,
        eval_batch_size=values.per_device_eval_batch_size,
    )
    evaluation = objective.evaluate(options.check)
    return evaluation.metrics if evaluation else {}


def _log_probabilities(
    base: BaseModel, renderer: ChatRenderer, options: RunOptions, values: Hyperparameters, items: Sequence[Any]
) -> dict[int, list[float]]:
    rendered = render_rows(renderer, items, max_length=base.context_window, check=options.check)
    answers = Answers(base.model, rendered.groups, pad_token_id=base.pad_token_id)
    found = {}
    batch_size = values.per_device_eval_batch_size
    for rows in split_by_length(range(len(answers)), answers.lengths, batch_size=batch_size):
        options.check()
        for row, numbers in zip(rows, answers.log_probabilities(rows).tolist(), strict=True):
            found[rendered.kept[row]] = numbers
    return found


def compare_preferences(
    items: Sequence[Any], base: Side, tuned: Side, *, beta: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`accuracy`: how often the model itself finds the better answer likelier. `reward_accuracy` and `margin`: how it
    moved against its base."""
    rows = sorted(base.log_probabilities.keys() & tuned.log_probabilities.keys())
    if not rows:
        return {}, {}
    gains = {
        row: [
            after - before
            for after, before in zip(tuned.log_probabilities[row], base.log_probabilities[row], strict=True)
        ]
        for row in rows
    }
    if isinstance(items[0], RatedAnswer):
        return _compare_ratings(items, rows, {row: gain[0] for row, gain in gains.items()})
    return _compare_pairs(rows, gains, base, tuned, beta=beta)


def _compare_ratings(
    items: Sequence[RatedAnswer], rows: Sequence[int], gains: dict[int, float]
) -> tuple[dict[str, Any], dict[str, Any]]:
    good = [gains[row] for row in rows if items[row].is_desirable]
    bad = [gains[row] for row in rows if not items[row].is_desirable]
    right = sum(gain > 0 for gain in good) + sum(gain < 0 for gain in bad)
    after: dict[str, Any] = {"rows": len(rows), "reward_accuracy": right / len(rows)}
    if good and bad:
        after["margin"] = sum(good) / len(good) - sum(bad) / len(bad)
    return {"rows": len(rows), "margin": 0.0}, after


def _compare_pairs(
    rows: Sequence[int], gains: dict[int, list[float]], base: Side, tuned: Side, *, beta: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    margins = [gains[row][0] - gains[row][1] for row in rows]
    before, after = (
        {
            "rows": len(rows),
            "accuracy": sum(s.log_probabilities[r][0] > s.log_probabilities[r][1] for r in rows) / len(rows),
        }
        for s in (base, tuned)
    )
    before |= {"eval_loss": math.log(2), "margin": 0.0}
    after |= {
        "eval_loss": sum(math.log1p(math.exp(-min(50.0, beta * margin))) for margin in margins) / len(rows),
        "margin": sum(margins) / len(rows),
        "reward_accuracy": sum(margin > 0 for margin in margins) / len(rows),
    }
    return before, after


def _prompts(spec: Spec, items: Sequence[Any]) -> list[Prompt]:
    """Our fixed ones, a few held-out ones unless some were given, and those given."""
    given = [(prompt["messages"], prompt.get("source", "conversation")) for prompt in spec.prompts]
    fixed = [] if any(source == FIXED for _, source in given) else load_general_texts().prompts
    held_out = [] if any(source == HELD_OUT for _, source in given) else items[:MAX_HELD_OUT_PROMPTS]
    return [
        *((prompt, FIXED) for prompt in fixed),
        *((_prompt_of(item), HELD_OUT) for item in held_out),
        *given,
    ]


def _prompt_of(item: Any) -> Sequence[Message]:
    """What stands before the last answer; all of it when there is none."""
    if isinstance(item, PreferencePair | RatedAnswer):
        return item.prompt
    last = max((position for position, message in enumerate(item) if message["role"] == "assistant"), default=None)
    return item[:last]


def _answers(
    base: BaseModel, renderer: ChatRenderer, options: RunOptions, values: Hyperparameters, prompts: Sequence[Prompt]
) -> dict[int, Answer]:
    """As the engine would write them: with the weights in the format of their folder. Left out: what does not fit."""
    window = base.context_window - ANSWER_TOKENS
    usable = [number for number, (prompt, _) in enumerate(prompts) if _fits(renderer, prompt, window)]
    model: Any = base.model
    texts = write_answers(
        model.to(base.dtype),
        renderer,
        [prompts[number][0] for number in usable],
        max_new_tokens=min(ANSWER_TOKENS, base.context_window // 2),
        batch_size=values.per_device_eval_batch_size,
        should_stop=options.should_stop,
    )
    options.check()
    return dict(zip(usable, texts, strict=True))


def _fits(renderer: ChatRenderer, prompt: Sequence[Message], window: int) -> bool:
    try:
        return bool(prompt) and 0 < len(renderer.render_prompt(prompt)) <= window
    except ConversationError:
        return False
