"""Trains a text classifier on any encoder: the head is new or taken over, all weights are trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from finetuning.training.batching import split_by_length
from finetuning.training.encoders import EncodedTexts, EncoderOutcome, encode_texts, pad, train_encoder
from finetuning.training.errors import BaseModelError, DataError
from finetuning.training.events import Phase
from finetuning.training.hyperparameters import Hyperparameters, Method
from finetuning.training.loading import BaseModel, load_base
from finetuning.training.loop import Evaluation
from finetuning.training.metrics import classification_metrics
from finetuning.training.precision import choose_device
from finetuning.training.runs import Run, RunOptions, digest

# How the families of encoders name their heads: these alone may be new.
HEADS = ("classifier", "pre_classifier", "score", "head", "bert.pooler", "pooler")


@dataclass(frozen=True)
class LabelledText:
    text: str
    label: str


@dataclass(frozen=True, kw_only=True)
class PreparedClassifier:
    """Ready to be trained, or to be looked at first. `labels` are in the order of the model's outputs."""

    run: Run
    encoded: EncodedTexts
    labels: list[str]


class ClassificationObjective:
    """Cross entropy over rows; accuracy, macro-F1 and the rest on held-out rows. The best has the highest macro-F1."""

    def __init__(
        self,
        base: BaseModel,
        encoded: EncodedTexts,
        expected: Sequence[int],
        *,
        held_out: EncodedTexts | None,
        held_out_expected: Sequence[int],
        labels: Sequence[str],
        eval_batch_size: int,
    ) -> None:
        self.lengths = encoded.lengths
        self.evaluation_tokens = sum(held_out.lengths) if held_out else 0
        self._base = base
        self._encoded = encoded
        self._expected = np.asarray(expected, dtype=np.int64)
        self._held_out = held_out
        self._held_out_expected = np.asarray(held_out_expected, dtype=np.int64)
        self._labels = labels
        self._eval_batch_size = eval_batch_size

    def prepare(self, check: Callable[[], None]) -> None:
        """There is nothing to prepare."""

    def begin_step(self, batches: Sequence[Sequence[int]], check: Callable[[], None]) -> None:
        """A batch's loss depends on nothing but the batch."""

    def units(self, rows: Sequence[int]) -> int:
        return len(rows)

    def loss(self, rows: Sequence[int]) -> torch.Tensor:
        logits = self._logits(self._encoded, rows)
        return functional.cross_entropy(logits, self._targets(self._expected, rows), reduction="sum")

    def evaluate(self, check: Callable[[], None]) -> Evaluation | None:
        if self._held_out is None:
            return None
        predicted = np.zeros(len(self._held_out_expected), dtype=np.int64)
        loss = 0.0
        lengths = self._held_out.lengths
        for rows in split_by_length(range(len(lengths)), lengths, batch_size=self._eval_batch_size):
            check()
            logits = self._logits(self._held_out, rows)
            targets = self._targets(self._held_out_expected, rows)
            loss += functional.cross_entropy(logits, targets, reduction="sum").item()
            predicted[rows] = logits.argmax(dim=1).cpu().numpy()
        measured = classification_metrics(self._held_out_expected, predicted, labels=self._labels)
        metrics = {"eval_loss": loss / len(lengths), **measured}
        return Evaluation(metrics, score=-measured["macro_f1"])

    def _logits(self, encoded: EncodedTexts, rows: Sequence[int]) -> torch.Tensor:
        model = self._base.model
        batch = pad([encoded.ids[row] for row in rows], pad_token_id=self._base.pad_token_id, device=model.device)
        return model(**batch).logits.float()

    def _targets(self, expected: np.ndarray, rows: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(expected[list(rows)]).to(self._base.model.device)


def prepare_classifier(
    base_folder: Path,
    rows: Sequence[LabelledText],
    *,
    options: RunOptions,
    hyperparameters: Hyperparameters,
    held_out: Sequence[LabelledText] = (),
) -> PreparedClassifier:
    """Load the base and encode all texts. Raises what `errors.py` names."""
    labels = _labels(rows, held_out)
    options.progress(Phase(name="loading"))
    labels = _in_order_of_base(base_folder, labels)
    base = _load(base_folder, labels, options, seed=hyperparameters.seed)
    encoded = encode_texts(base, [row.text for row in rows], max_length=hyperparameters.max_length)
    held = encode_texts(base, [row.text for row in held_out], max_length=encoded.max_length) if held_out else None
    number = {label: position for position, label in enumerate(labels)}
    objective = ClassificationObjective(
        base,
        encoded,
        [number[row.label] for row in rows],
        held_out=held,
        held_out_expected=[number[row.label] for row in held_out],
        labels=labels,
        eval_batch_size=hyperparameters.per_device_eval_batch_size,
    )
    run = Run(
        method=Method.CLASSIFICATION,
        model=base.model,
        objective=objective,
        base=base,
        hyperparameters=hyperparameters,
        data=digest([[row.text, row.label] for row in (*rows, *held_out)]),
    )
    return PreparedClassifier(run=run, encoded=encoded, labels=labels)


def train_classifier(
    base_folder: Path,
    rows: Sequence[LabelledText],
    *,
    options: RunOptions,
    hyperparameters: Hyperparameters,
    held_out: Sequence[LabelledText] = (),
) -> EncoderOutcome:
    """Train, keep the weights with the best macro-F1, save a model that the engine serves.

    A label that only held-out rows have is an error, as is a single label. Raises what `errors.py` names.
    """
    prepared = prepare_classifier(
        base_folder, rows, options=options, hyperparameters=hyperparameters, held_out=held_out
    )
    return train_encoder(prepared.run, prepared.encoded, options, labels=prepared.labels)


def _labels(rows: Sequence[LabelledText], held_out: Sequence[LabelledText]) -> list[str]:
    labels = sorted({row.label for row in rows})
    if len(labels) < 2:
        raise DataError(f"A classifier needs at least two labels; the training rows have {len(labels)}.")
    unknown = sorted({row.label for row in held_out} - set(labels))
    if unknown:
        raise DataError(f"Held-out rows have labels that no training row has: {', '.join(unknown[:5])}.")
    return labels


def _in_order_of_base(folder: Path, labels: list[str]) -> list[str]:
    """A base that knows these very labels keeps its head, so its numbers for them are kept too."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{folder.name} could not be loaded: {error}") from error
    known = {int(number): label for number, label in (config.get("id2label") or {}).items()}
    ordered = [known[number] for number in sorted(known)]
    return ordered if sorted(ordered) == labels else labels


def _load(folder: Path, labels: Sequence[str], options: RunOptions, *, seed: int) -> BaseModel:
    torch.manual_seed(seed)  # the new head's first weights
    return load_base(
        folder,
        AutoModelForSequenceClassification,
        device=choose_device(options.use_gpu),
        fresh=HEADS,
        id2label=dict(enumerate(labels)),
        label2id={label: position for position, label in enumerate(labels)},
        problem_type="single_label_classification",
        ignore_mismatched_sizes=True,
    )
