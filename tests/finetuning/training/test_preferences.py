"""Preferred answers become likelier than the others, measured against the model the run began with."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from finetuning.training.errors import DataError
from finetuning.training.hyperparameters import Hyperparameters, Method
from finetuning.training.preference_losses import dpo_losses, kto_losses
from finetuning.training.preferences import PreferencePair, RatedAnswer, train_preferences
from finetuning.training.runs import RunOptions
from finetuning.training.sft import train_sft
from models_hub.engine.loading import load_folder
from models_hub.engine.options import Task
from tests.finetuning.training.builders import conversation, save_base
from tests.finetuning.training.toys import StopAfter

VALUES = Hyperparameters.for_method(
    Method.DPO,
    rows=10,
    learning_rate=0.01,
    max_steps=12,
    eval_steps=6,
    lora_dropout=0.1,
    precision="float32",
)


def prompt(number: int) -> list[dict]:
    return conversation(f"code {number}", "what?", f"the word {number}")


PAIRS = [PreferencePair(prompt(p), "blue", "red") for p in range(8)]
RATED = [RatedAnswer(prompt(p), "blue" if p % 2 else "red", is_desirable=bool(p % 2)) for p in range(8)]
methods = pytest.mark.parametrize("rows", [PAIRS, RATED], ids=["dpo", "kto"])


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_base(tmp_path_factory.mktemp("models") / "tiny-llama")


def train(base: Path, folder: Path, rows, *, values=VALUES, adapter: Path | None = None, **options):
    return train_preferences(
        base,
        rows,
        held_out=rows[:4],
        hyperparameters=values,
        adapter=adapter,
        options=RunOptions(folder=folder, **options),
    )


@methods
def test_good_answers_gain_on_bad_ones(base, tmp_path, rows):
    outcome = train(base, tmp_path, rows)
    first, last = outcome.result.evaluations[0], outcome.result.evaluations[-1]
    assert first["margin"] == pytest.approx(0, abs=1e-4)
    assert last["margin"] > 1 and last["eval_loss"] < first["eval_loss"]


@methods
def test_precision_can_be_measured_first(base, tmp_path, rows):
    outcome = train(base, tmp_path, rows, values=replace(VALUES, max_steps=1, precision="auto"))
    assert outcome.result.precision in {"float32", "bfloat16"}
    assert outcome.result.evaluations[0].get("margin") == pytest.approx(0, abs=1e-2)


@methods
def test_result_is_loaded_by_the_engine(base, tmp_path, rows):
    outcome = train(base, tmp_path, rows, values=replace(VALUES, max_steps=1))
    load_folder(outcome.folders["model"], Task.CHAT, device="cpu", dtype=torch.float32)


@methods
def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(base, tmp_path, rows):
    """The reference must be the model of the beginning, not that of the checkpoint."""
    whole = train(base, tmp_path / "whole", rows)
    stopped = train(base, tmp_path / "parts", rows, **StopAfter(3).options)
    assert stopped.result.status == "stopped" and stopped.result.step > 0
    resumed = train(base, tmp_path / "parts", rows)
    assert resumed.result.evaluations == whole.result.evaluations
    assert resumed.result.train_loss == whole.result.train_loss


def test_earlier_adapter_is_the_reference(base, tmp_path):
    tuned = train_sft(
        base,
        [conversation("code 1", "blue")] * 4,
        hyperparameters=Hyperparameters(learning_rate=0.01, max_steps=4, precision="float32"),
        options=RunOptions(folder=tmp_path / "sft"),
    )
    outcome = train(base, tmp_path / "dpo", PAIRS, adapter=tuned.folders["adapter"])
    first = outcome.result.evaluations[0]
    assert first["margin"] == pytest.approx(0, abs=1e-4) and first["eval_loss"] == pytest.approx(math.log(2), rel=1e-4)


def test_pair_of_equal_sides_and_rows_too_long_are_excluded_and_named(base, tmp_path):
    rows = [*PAIRS, PreferencePair(prompt(1), "same", "same"), PreferencePair(prompt(1), "word " * 60, "red")]
    outcome = train(base, tmp_path, rows, values=replace(VALUES, max_steps=1, max_length=80))
    assert [excluded.row for excluded in outcome.excluded] == [8, 9]


def test_ratings_of_one_kind_are_refused(base, tmp_path):
    with pytest.raises(DataError, match="only one kind"):
        train(base, tmp_path, [row for row in RATED if row.is_desirable])


def test_no_row_at_all_is_refused(base, tmp_path):
    with pytest.raises(DataError):
        train(base, tmp_path, [])


def test_dpo_loss_is_the_published_one():
    values = [torch.tensor([number]) for number in (-1.0, -3.0, -2.0, -2.5)]
    loss = dpo_losses(values[0], values[1], reference_chosen=values[2], reference_rejected=values[3], beta=0.5)
    assert loss.item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.5 * (1.0 + 0.5)))))


def test_kto_loss_weighs_both_kinds():
    losses = kto_losses(
        torch.tensor([0.0, 0.0]),
        reference=torch.zeros(2),
        is_desirable=torch.tensor([True, False]),
        kl=torch.tensor(0.0),
        beta=0.1,
        desirable_weight=1.0,
        undesirable_weight=3.0,
    )
    assert losses.tolist() == [0.5, 1.5]
