"""A tuned encoder beside its base: a classifier or a filler of masked tokens, on held-out texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from finetuning.training.batching import split_by_length
from finetuning.training.classification import ClassificationObjective, LabelledText
from finetuning.training.encoders import encode_texts, pad
from finetuning.training.errors import BaseModelError, DataError
from finetuning.training.hyperparameters import Hyperparameters
from finetuning.training.loading import BaseModel, load_base
from finetuning.training.masked_lm import MaskedLmObjective, encode_maskable
from finetuning.training.memory import explained
from finetuning.training.metrics import classification_metrics
from finetuning.training.precision import choose_device
from finetuning.training.runs import RunOptions
from finetuning.training.specs import Spec

SHOWN_TEXTS = 8


@dataclass
class ClassifierEvaluation:
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)
    unknown_labels: list[str] = field(default_factory=list)


@torch.no_grad()
def evaluate_classifier(
    spec: Spec, options: RunOptions, values: Hyperparameters, rows: Sequence[LabelledText]
) -> ClassifierEvaluation:
    """A base without a head, or with other labels, has no `before` but the share of the commonest label."""
    result = ClassifierEvaluation()
    with explained(values, is_evaluation=True):
        tuned = load_base(spec.tuned_folder, AutoModelForSequenceClassification, device=choose_device(options.use_gpu))
        labels = labels_of(tuned)
        result.unknown_labels = sorted({row.label for row in rows} - set(labels))
        known = [row for row in rows if row.label in labels]
        texts = _shown_texts(spec, known)
        after = _classify(tuned, [text for text, _ in texts], values)
        base = _base_with(spec.base, labels, options)
        before = _classify(base, [text for text, _ in texts], values) if base else [""] * len(texts)
        result.answers = [
            {"prompt": text, "source": source, "base": b, "tuned": a, "base_stopped": True, "tuned_stopped": True}
            for (text, source), b, a in zip(texts, before, after, strict=True)
        ]
        if known:
            result.after = _measure(tuned, known, labels, options, values)
            result.before = _measure(base, known, labels, options, values) if base else _majority(known, labels)
    return result


@torch.no_grad()
def evaluate_masked_lm(
    spec: Spec, options: RunOptions, values: Hyperparameters, texts: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Loss and perplexity on the same masked tokens; a base without a head has none."""
    with explained(values, is_evaluation=True):
        tuned = load_base(spec.tuned_folder, AutoModelForMaskedLM, device=choose_device(options.use_gpu))
        after = _fill(tuned, texts, options, values)
        try:
            base = load_base(spec.base, AutoModelForMaskedLM, device=choose_device(options.use_gpu))
        except BaseModelError:
            return {}, after
        return _fill(base, texts, options, values), after


def labels_of(base: BaseModel) -> list[str]:
    """In the order of the model's outputs."""
    names = {int(number): str(label) for number, label in (base.model.config.id2label or {}).items()}
    return [names[number] for number in sorted(names)]


def _base_with(folder: Path, labels: Sequence[str], options: RunOptions) -> BaseModel | None:
    """The base, when it is a classifier for these very labels."""
    known = json.loads((folder / "config.json").read_text()).get("id2label") or {}
    if sorted(known.values()) != sorted(labels):
        return None
    try:
        return load_base(folder, AutoModelForSequenceClassification, device=choose_device(options.use_gpu))
    except BaseModelError:
        return None


def _measure(
    base: BaseModel, rows: Sequence[LabelledText], labels: Sequence[str], options: RunOptions, values: Hyperparameters
) -> dict[str, Any]:
    encoded = encode_texts(base, [row.text for row in rows], max_length=values.max_length or base.context_window)
    own = labels_of(base)
    expected = [own.index(row.label) for row in rows]
    objective = ClassificationObjective(
        base,
        encoded,
        expected,
        held_out=encoded,
        held_out_expected=expected,
        labels=own,
        eval_batch_size=values.per_device_eval_batch_size,
    )
    base.model.eval()
    evaluation = objective.evaluate(options.check)
    metrics = evaluation.metrics if evaluation else {}
    return {**metrics, "labels": own, "rows": len(rows)}


def _majority(rows: Sequence[LabelledText], labels: Sequence[str]) -> dict[str, Any]:
    """What always saying the commonest label would reach: all there is to compare with."""
    expected = [labels.index(row.label) for row in rows]
    commonest = max(set(expected), key=expected.count)
    metrics = classification_metrics(expected, [commonest] * len(rows), labels=labels)
    return {"majority": metrics["majority"], "rows": len(rows), "has_head": False}


def _shown_texts(spec: Spec, rows: Sequence[LabelledText]) -> list[tuple[str, str]]:
    given = [(prompt["messages"][-1]["content"], prompt.get("source", "conversation")) for prompt in spec.prompts]
    return [*((row.text, "held out") for row in rows[:SHOWN_TEXTS]), *given]


def _classify(base: BaseModel, texts: Sequence[str], values: Hyperparameters) -> list[str]:
    if not texts:
        return []
    encoded, labels = encode_texts(base, texts, max_length=base.context_window), labels_of(base)
    base.model.eval()
    named = [""] * len(texts)
    batch_size = values.per_device_eval_batch_size
    for rows in split_by_length(range(len(texts)), encoded.lengths, batch_size=batch_size):
        ids = [encoded.ids[row] for row in rows]
        batch = pad(ids, pad_token_id=base.pad_token_id, device=base.model.device)
        best = base.model(**batch).logits.float().softmax(dim=1).max(dim=1)
        for row, number, score in zip(rows, best.indices.tolist(), best.values.tolist(), strict=True):
            named[row] = f"{labels[number]} ({score:.0%})"
    return named


def _fill(base: BaseModel, texts: Sequence[str], options: RunOptions, values: Hyperparameters) -> dict[str, Any]:
    if not texts:
        return {}
    base.model.eval()
    try:
        encoded = encode_maskable(base, texts, max_length=values.max_length)
    except DataError:
        return {}
    objective = MaskedLmObjective(base, encoded.ids, held_out=encoded.ids, hyperparameters=values)
    evaluation = objective.evaluate(options.check)
    return {**evaluation.metrics, "rows": len(encoded.ids)} if evaluation else {}
