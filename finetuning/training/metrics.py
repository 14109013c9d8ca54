"""Measures of a classifier on held-out rows: accuracy, macro-F1, one line for each label, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def classification_metrics(expected: ArrayLike, predicted: ArrayLike, *, labels: Sequence[str]) -> dict[str, Any]:
    """`confusion[i][j]` counts rows of label i that were called label j. Ready for JSON.

    Macro-F1 is the mean over the labels that occur, so that a rare label counts as much as a frequent one.
    `majority` is the accuracy of always saying the commonest label: what a classifier has to beat.
    """
    confusion = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(confusion, (np.asarray(expected), np.asarray(predicted)), 1)
    correct, support, called = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = _ratio(correct, called), _ratio(correct, support)
    f1 = _ratio(2 * correct, support + called)
    per_class = {
        label: {
            "precision": float(precision[position]),
            "recall": float(recall[position]),
            "f1": float(f1[position]),
            "support": int(support[position]),
        }
        for position, label in enumerate(labels)
    }
    total = max(1, int(confusion.sum()))
    return {
        "accuracy": float(correct.sum() / total),
        "macro_f1": float(f1[support > 0].mean()) if support.any() else 0.0,
        "majority": float(support.max(initial=0) / total),
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
