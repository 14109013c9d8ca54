"""A tuned model beside its base: on held-out rows, on general texts, and in answers that people read side by side."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from finetuning.training.encoder_evaluation import evaluate_classifier, evaluate_masked_lm
from finetuning.training.events import Phase
from finetuning.training.hyperparameters import Hyperparameters, Method
from finetuning.training.methods import read_examples
from finetuning.training.runs import RunOptions
from finetuning.training.side import Side, compare_preferences, look_at_side, sample_rows
from finetuning.training.specs import Row, Spec

FORGETTING = 1.2
FEWER_STOPS = 0.1
FEW_HELD_OUT = 20


@dataclass
class Evaluation:
    """What the last event carries. Empty dicts: not measured, or there is nothing to measure."""

    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    general_before: dict[str, Any] = field(default_factory=dict)
    general_after: dict[str, Any] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)
    stop_rate_before: float | None = None
    stop_rate_after: float | None = None
    warnings: list[dict[str, str]] = field(default_factory=list)

    def warn(self, code: str, message: str) -> None:
        self.warnings.append({"code": code, "message": message})


def evaluate(spec: Spec, options: RunOptions) -> Evaluation:
    """Blocks for minutes: two models, one after the other. Raises what `errors.py` names, or `StopRequested`."""
    options.progress(Phase(name="evaluating"))
    rows = spec.rows("test") or spec.rows("validation")
    values = spec.resolve(spec.rows("train") or rows)
    evaluation = Evaluation()
    if len(rows) < FEW_HELD_OUT:
        evaluation.warn("few_held_out", f"Only {len(rows)} held-out rows: their figures are hardly more than chance.")
    if spec.method is Method.CLASSIFICATION:
        _evaluate_classifier(evaluation, spec, options, values, rows)
    elif spec.method is Method.MASKED_LM:
        texts = read_examples(spec.method, rows).items
        evaluation.before, evaluation.after = evaluate_masked_lm(spec, options, values, texts)
    else:
        _evaluate_causal(evaluation, spec, options, values, rows)
    _judge(evaluation)
    return evaluation


def _evaluate_causal(
    evaluation: Evaluation, spec: Spec, options: RunOptions, values: Hyperparameters, rows: Sequence[Row]
) -> None:
    items = sample_rows(read_examples(spec.method, rows).items, seed=values.seed)
    base = look_at_side(spec, spec.base, options, values, items)
    _forget_model()
    tuned = look_at_side(spec, spec.tuned_folder, options, values, items, precision=base.precision)
    _forget_model()
    evaluation.before, evaluation.after = base.metrics, tuned.metrics
    if spec.method in (Method.DPO, Method.KTO) and items:
        evaluation.before, evaluation.after = compare_preferences(items, base, tuned, beta=values.beta)
    evaluation.general_before, evaluation.general_after = base.general, tuned.general
    evaluation.stop_rate_before, evaluation.stop_rate_after = base.stop_rate, tuned.stop_rate
    evaluation.answers = _side_by_side(base, tuned)


def _side_by_side(base: Side, tuned: Side) -> list[dict[str, Any]]:
    return [
        {
            "prompt": base.answers[key].prompt,
            "source": source,
            "messages": prompt,
            "base": base.answers[key].text,
            "tuned": tuned.answers[key].text,
            "base_stopped": base.answers[key].has_stopped,
            "tuned_stopped": tuned.answers[key].has_stopped,
        }
        for key, (prompt, source) in enumerate(base.prompts)
        if key in base.answers and key in tuned.answers
    ]


def _evaluate_classifier(
    evaluation: Evaluation, spec: Spec, options: RunOptions, values: Hyperparameters, rows: Sequence[Row]
) -> None:
    result = evaluate_classifier(spec, options, values, read_examples(spec.method, rows).items)
    evaluation.before, evaluation.after, evaluation.answers = result.before, result.after, result.answers
    if result.unknown_labels:
        evaluation.warn(
            "unknown_labels", f"The model does not know the labels {', '.join(result.unknown_labels[:5])}: left out."
        )


def _judge(evaluation: Evaluation) -> None:
    """What a person should know before promoting it."""
    before, after = evaluation.before, evaluation.after
    _judge_held_out(evaluation, before, after)
    general = [side.get("perplexity") for side in (evaluation.general_before, evaluation.general_after)]
    if general[0] and general[1] and general[1] > general[0] * FORGETTING:
        evaluation.warn(
            "forgetting",
            f"On general texts its perplexity rose from {general[0]:.1f} to {general[1]:.1f}: it has forgotten much.",
        )
    rates = evaluation.stop_rate_before, evaluation.stop_rate_after
    if rates[0] is not None and rates[1] is not None and rates[1] < rates[0] - FEWER_STOPS:
        evaluation.warn(
            "stop_rate", f"It ends {rates[1]:.0%} of its answers by itself, and its base {rates[0]:.0%}: it rambles."
        )


def _judge_held_out(evaluation: Evaluation, before: dict[str, Any], after: dict[str, Any]) -> None:
    for name, is_better_lower in (("macro_f1", False), ("accuracy", False), ("eval_loss", True)):
        if name in before and name in after:
            if (after[name] > before[name]) if is_better_lower else (after[name] < before[name]):
                evaluation.warn(
                    "worse_than_base",
                    f"On held-out rows its {name} is {after[name]:.3f}, and its base's {before[name]:.3f}.",
                )
            break
    if "macro_f1" in after and after["accuracy"] <= after["majority"]:
        evaluation.warn("no_better_than_majority", "It is right no more often than always saying the commonest label.")


def _forget_model() -> None:
    """The second model should not need memory beside the first."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
