"""Defaults follow the method and the number of rows; what cannot be meant is refused."""

from __future__ import annotations

import json

import pytest

from finetuning.pages.job_words import FIELDS, REASONS
from finetuning.training.hyperparameters import Hyperparameters, Method


@pytest.mark.parametrize(("rows", "epochs"), [(200, 3), (5_000, 2), (50_000, 1)])
def test_more_rows_need_fewer_epochs(rows, epochs):
    assert Hyperparameters.for_method(Method.LORA_SFT, rows=rows).num_train_epochs == epochs


def test_lora_learns_ten_times_faster_than_full_training():
    lora, full = (Hyperparameters.for_method(m, rows=100) for m in (Method.LORA_SFT, Method.FULL_SFT))
    assert (lora.learning_rate, full.learning_rate) == (2e-4, 2e-5)
    assert (lora.lora_r, lora.lora_alpha, lora.target_modules, lora.effective_batch_size) == (16, 32, "all-linear", 16)


def test_chosen_values_win():
    assert Hyperparameters.for_method(Method.CLASSIFICATION, rows=100, learning_rate=1e-3).learning_rate == 1e-3


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 0},
        {"per_device_train_batch_size": 0},
        {"lora_dropout": 1.0},
        {"lr_scheduler_type": "magic"},
        {"precision": "float8"},
        {"max_length": 2},
        {"seed": "x"},
        {"seed": 2**70},
        {"adam_beta1": float("nan")},
        {"adam_beta2": 1.5},
        {"learning_rate": True},
        {"learning_rate": float("inf")},
        {"learning_rate": None},
        {"num_train_epochs": 2.5},
        {"num_train_epochs": 10**12},
        {"max_steps": 10**30},
        {"gradient_checkpointing": "no"},
        {"desirable_weight": {"a": [1]}},
        {"target_modules": "x" * 1_000_000},
        {"target_modules": ("q_proj", 5)},
        {"target_modules": {"q_proj": 1}},
        {"lr_scheduler_type": ["cosine"]},
    ],
)
def test_values_that_cannot_be_meant_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Hyperparameters(**values)


def test_misspelt_name_is_refused():
    with pytest.raises(ValueError, match="learning_rat"):
        Hyperparameters.from_dict({"learning_rat": 1e-4})


def test_values_survive_json():
    values = Hyperparameters(target_modules=("q_proj", "v_proj"), max_length=64)
    assert Hyperparameters.from_dict(json.loads(json.dumps(values.to_dict()))) == values


def test_less_memory_keeps_the_effective_batch():
    values = Hyperparameters(per_device_train_batch_size=4, gradient_accumulation_steps=4)
    smaller = Hyperparameters.from_dict({**values.to_dict(), **values.for_less_memory()})
    assert (smaller.per_device_train_batch_size, smaller.effective_batch_size) == (2, 16)
    assert smaller.per_device_eval_batch_size == 4


def test_less_memory_ends_with_shorter_rows():
    ones = {"per_device_train_batch_size": 1, "per_device_eval_batch_size": 1}
    assert Hyperparameters(**ones).for_less_memory() == {"gradient_checkpointing": True}
    last = Hyperparameters(**ones, gradient_checkpointing=True, max_length=64)
    assert last.for_less_memory() == {"max_length": 32}


def test_less_memory_for_an_evaluation_leaves_the_training_alone():
    values = Hyperparameters(per_device_eval_batch_size=64, max_length=64)
    assert values.for_less_memory(is_evaluation=True) == {"per_device_eval_batch_size": 32}
    alone = Hyperparameters(per_device_eval_batch_size=1, max_length=64)
    assert alone.for_less_memory(is_evaluation=True) == {"max_length": 32}
    assert Hyperparameters(per_device_eval_batch_size=1).for_less_memory(is_evaluation=True) == {}


def test_form_says_of_each_method_what_becomes_of_a_long_row():
    for method, sentence in REASONS["max_length"].items():
        is_left_out = method in (Method.DPO, Method.KTO)
        assert ("left out" in sentence, "is cut." in sentence) == (is_left_out, not is_left_out)
    assert REASONS["max_length"].keys() == set(Method) and "cut" not in FIELDS["max_length"].help
