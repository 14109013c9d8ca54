"""An encoder without a head becomes a classifier that the engine serves; what it is worth is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from finetuning.training.classification import LabelledText, train_classifier
from finetuning.training.errors import BaseModelError, DataError, ResumeMismatchError
from finetuning.training.hyperparameters import Hyperparameters, Method
from finetuning.training.runs import RunOptions
from models_hub.engine.loading import load_folder
from models_hub.engine.options import Task
from models_hub.starter import verify_manifest
from tests.finetuning.training.builders import build_encoder
from tests.finetuning.training.toys import stop_at

VALUES = Hyperparameters.for_method(
    Method.CLASSIFICATION,
    rows=100,
    learning_rate=0.01,
    max_steps=30,
    eval_steps=10,
    per_device_train_batch_size=8,
    precision="float32",
)
LONGER = replace(VALUES, max_steps=80, eval_steps=40)
NOUNS = ["film", "cat", "dog", "mat"]
ROWS = [
    LabelledText(f"the {noun} was {feeling} {' and it ran' * (p % 3)}", label)
    for p, noun in enumerate(NOUNS * 3)
    for feeling, label in (("good", "positive"), ("loved", "positive"), ("bad", "negative"), ("hated", "negative"))
]
HELD_OUT = [LabelledText("a very good cat", "positive"), LabelledText("a very bad dog", "negative")]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_encoder(tmp_path_factory.mktemp("models") / "tiny-encoder")


def train(base: Path, folder: Path, *, rows=ROWS, held_out=HELD_OUT, values=VALUES, **options):
    options = RunOptions(folder=folder, **options)
    return train_classifier(base, rows, held_out=held_out, hyperparameters=values, options=options)


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    return train(base, tmp_path_factory.mktemp("run"))


def classify(folder: Path, text: str) -> str:
    loaded = load_folder(folder, Task.CLASSIFICATION, device="cpu", dtype=torch.float32)
    logits = loaded.model(**loaded.tokenizer(text, return_tensors="pt")).logits
    return loaded.model.config.id2label[logits.argmax().item()]


def test_encoder_learns_and_the_engine_loads_it(trained):
    folder = trained.folders["model"]
    assert trained.result.evaluations[-1]["accuracy"] == 1.0
    assert [classify(folder, text) for text in ("the film was loved", "it was hated")] == ["positive", "negative"]


def test_result_carries_hashes_labels_and_origin(trained, base):
    folder = trained.folders["model"]
    assert verify_manifest(folder) is not None
    origin = json.loads((folder / "manifest.json").read_text())["origin"]
    assert (origin["labels"], origin["base"]) == (["negative", "positive"], base.name)


def test_first_evaluation_measures_the_untrained_head(trained):
    first = trained.result.evaluations[0]
    assert first["step"] == 0 and set(first) >= {"accuracy", "macro_f1", "per_class", "confusion", "eval_loss"}


def test_stopped_run_saves_no_model(base, tmp_path):
    outcome = train(base, tmp_path, should_stop=stop_at(8))
    assert outcome.result.status == "stopped" and outcome.folders == {}
    assert not (tmp_path / "model").exists()


def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(base, tmp_path, trained):
    train(base, tmp_path, should_stop=stop_at(15))
    resumed = train(base, tmp_path)
    assert resumed.result.evaluations == trained.result.evaluations
    assert resumed.result.train_loss == trained.result.train_loss


def test_run_with_other_labels_does_not_resume(base, tmp_path):
    train(base, tmp_path, should_stop=stop_at(8))
    changed = [replace(ROWS[0], label="negative"), *ROWS[1:]]
    with pytest.raises(ResumeMismatchError, match="data"):
        train(base, tmp_path, rows=changed)


def test_trained_classifier_can_be_trained_on_and_keeps_its_labels(trained, tmp_path):
    values = replace(VALUES, max_steps=1, learning_rate=1e-6)
    again = train(trained.folders["model"], tmp_path, values=values)
    assert again.result.evaluations[0]["accuracy"] == 1.0


def test_trained_classifier_gets_a_new_head_for_other_labels(trained, tmp_path):
    rows = [*ROWS, *(LabelledText(f"the {noun} sat on it", "neutral") for noun in NOUNS * 3)]
    outcome = train(trained.folders["model"], tmp_path, rows=rows, held_out=rows)
    loaded = load_folder(outcome.folders["model"], Task.CLASSIFICATION, device="cpu", dtype=torch.float32)
    assert list(loaded.model.config.id2label.values()) == ["negative", "neutral", "positive"]


def test_more_than_two_labels_work(base, tmp_path):
    rows = [*ROWS, *(LabelledText(f"the {noun} sat on it", "neutral") for noun in NOUNS * 3)]
    outcome = train(base, tmp_path, rows=rows, held_out=rows, values=LONGER)
    assert classify(outcome.folders["model"], "the film sat on it") == "neutral"


@pytest.mark.parametrize(
    ("rows", "held_out", "sentence"),
    [
        ([LabelledText("a", "one")] * 4, [], "at least two labels"),
        ([], [], "at least two labels"),
        (ROWS, [LabelledText("a", "strange")], "strange"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(base, tmp_path, rows, held_out, sentence):
    with pytest.raises(DataError, match=sentence):
        train(base, tmp_path, rows=rows, held_out=held_out)


def test_base_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(BaseModelError, match="nowhere"):
        train(tmp_path / "nowhere", tmp_path / "run")


def test_only_the_head_may_be_new(base, tmp_path):
    broken = build_encoder(tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "n_layers": 2}))
    with pytest.raises(BaseModelError, match=r"transformer\.layer\.1"):
        train(broken, tmp_path / "run")


def test_long_texts_are_cut_and_counted(base, tmp_path):
    rows = [*ROWS, LabelledText("good " * 200, "positive")]
    outcome = train(base, tmp_path, rows=rows, values=replace(VALUES, max_steps=1, max_length=16))
    assert (outcome.max_length, outcome.cut) == (16, 1)
