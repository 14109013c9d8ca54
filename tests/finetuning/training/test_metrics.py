"""The measures agree with what one counts by hand, and a split keeps every label's share."""

from __future__ import annotations

import json

import pytest

from finetuning.training.metrics import classification_metrics
from finetuning.training.splits import stratified_split


def test_measures_are_those_counted_by_hand():
    metrics = classification_metrics([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 2], labels=["a", "b", "c"])
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert metrics["per_class"]["a"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3})
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert metrics["majority"] == 0.5


def test_label_that_is_never_called_counts_as_nothing():
    metrics = classification_metrics([0, 1], [0, 0], labels=["a", "b"])
    assert metrics["per_class"]["b"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert metrics["macro_f1"] == pytest.approx(1 / 3)


def test_label_that_does_not_occur_lowers_no_mean():
    assert classification_metrics([0, 1], [0, 1], labels=["a", "b", "c"])["macro_f1"] == 1.0


def test_measures_are_ready_for_json():
    assert json.loads(json.dumps(classification_metrics([0], [1], labels=["a", "b"])))["accuracy"] == 0.0


def test_split_keeps_each_labels_share():
    labels = ["rare"] * 20 + ["common"] * 180
    train, held_out = stratified_split(labels, held_out=0.1, seed=3)
    assert [labels[row] for row in held_out].count("rare") == 2 and len(held_out) == 20
    assert sorted(train + held_out) == list(range(200))


def test_split_is_the_same_for_the_same_seed_only():
    labels = ["a", "b"] * 50
    assert stratified_split(labels, seed=1) == stratified_split(labels, seed=1) != stratified_split(labels, seed=2)


def test_label_with_one_row_stays_in_training():
    train, held_out = stratified_split(["a"] * 10 + ["alone"], held_out=0.5)
    assert 10 in train and 10 not in held_out
