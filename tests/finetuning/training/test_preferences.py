"""Preferred answers become likelier than the others, measured against the model the run began with."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from finetuning.training.errors import DataError, TemplateError
from finetuning.training.hyperparameters import Hyperparameters, Method
from finetuning.training.preference_losses import dpo_losses, kto_losses
from finetuning.training.preferences import (
    PreferencePair,
    RatedAnswer,
    render_rows,
    train_preferences,
    with_mismatched,
)
from finetuning.training.rendering import ChatRenderer
from finetuning.training.runs import RunOptions
from finetuning.training.sft import train_sft
from models_hub.engine.loading import load_folder
from models_hub.engine.options import Task
from tests.finetuning.training.builders import build_tokenizer, conversation, save_base
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


def nothing() -> None:
    """Nobody asks to stop."""


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


def too_long(number: int) -> RatedAnswer:
    return RatedAnswer(prompt(number), "word " * 60, is_desirable=True)


@pytest.mark.parametrize("place", [0, 3, len(RATED)])
def test_rated_answer_before_one_that_is_too_long_is_trained_on(base, tmp_path, place):
    rows = [*RATED[:place], too_long(place), *RATED[place:]]
    outcome = train(base, tmp_path, rows, values=replace(VALUES, max_steps=1, max_length=80))
    assert [excluded.row for excluded in outcome.excluded] == [place]


def test_mismatched_answer_is_that_of_the_next_row_cut_to_what_fits(base):
    tokenizer = build_tokenizer()
    renderer = ChatRenderer(tokenizer)
    rows = [RatedAnswer(prompt(1) * 9, "red", True), too_long(2), RatedAnswer(prompt(3), "blue", False)]
    limit = len(renderer.render_prompt(rows[0].prompt)) + 10
    rendered = with_mismatched(
        renderer, rows, render_rows(renderer, rows, max_length=limit, check=nothing), max_length=limit, check=nothing
    )
    assert rendered.kept == [0, 1, 2]
    written = [tokenizer.decode(other.input_ids[other.is_trained]) for _, other in rendered.groups]
    assert written[0].startswith("word word") and written[1:] == ["blue<|im_end|>", "red<|im_end|>"]
    assert len(rendered.groups[0][1]) == limit


def test_answer_that_a_prompt_cannot_be_given_is_passed_over(base, monkeypatch):
    renderer = ChatRenderer(build_tokenizer())
    rendered = render_rows(renderer, RATED, max_length=256, check=nothing)
    render = ChatRenderer.render

    def refuse_red(self, messages):
        if messages[-1]["content"] == "red":
            raise TemplateError("It does not take this.")
        return render(self, messages)

    monkeypatch.setattr(ChatRenderer, "render", refuse_red)
    groups = with_mismatched(renderer, RATED, rendered, max_length=256, check=nothing).groups
    assert len(groups) == len(RATED)
    assert {renderer.tokenizer.decode(other.input_ids[other.is_trained]) for _, other in groups} == {"blue<|im_end|>"}


@methods
def test_one_batch_of_four_trains_like_four_of_one(base, tmp_path, rows):
    """KTO's distance to the reference is that of the whole step: of a batch of one it would be another objective."""
    outcomes = []
    for size, steps in ((4, 1), (1, 4)):
        values = replace(VALUES, per_device_train_batch_size=size, gradient_accumulation_steps=steps, lora_dropout=0.0)
        outcomes.append(train(base, tmp_path / f"of-{size}", rows, values=values))
    losses = [[evaluation["eval_loss"] for evaluation in outcome.result.evaluations] for outcome in outcomes]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) and losses[0][-1] < losses[0][0]
    assert outcomes[0].result.train_loss == pytest.approx(outcomes[1].result.train_loss, rel=1e-3)


@methods
def test_batch_of_evaluations_changes_no_figure(base, tmp_path, rows):
    figures = [
        train(
            base, tmp_path / str(size), rows, values=replace(VALUES, per_device_eval_batch_size=size)
        ).result.evaluations
        for size in (4, 1)
    ]
    for one, other in zip(*figures, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


@methods
def test_held_out_rows_that_cannot_be_used_are_done_without(base, tmp_path, rows):
    endless = replace(rows[0], prompt=conversation("word " * 300, "what?", "x"))
    options = RunOptions(folder=tmp_path)
    values = replace(VALUES, max_steps=1)
    outcome = train_preferences(base, rows, held_out=[endless], hyperparameters=values, options=options)
    assert outcome.result.evaluations == [] and [excluded.row for excluded in outcome.held_out_excluded] == [0]


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
