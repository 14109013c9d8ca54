"""An encoder without a head learns to fill in masked tokens, and the engine serves it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM

from finetuning.training.errors import DataError
from finetuning.training.hyperparameters import Hyperparameters, Method
from finetuning.training.loading import load_base
from finetuning.training.masked_lm import MaskedLmObjective, train_masked_lm
from finetuning.training.runs import RunOptions
from models_hub.engine.encoders import LoadedMaskFiller
from models_hub.engine.formats import FillMaskRequest
from models_hub.engine.loading import load_folder
from models_hub.engine.options import Task
from tests.finetuning.training.builders import build_encoder
from tests.finetuning.training.toys import StopAfter

VALUES = Hyperparameters.for_method(
    Method.MASKED_LM,
    rows=100,
    learning_rate=0.01,
    max_steps=60,
    eval_steps=20,
    per_device_train_batch_size=8,
    precision="float32",
)
TEXTS = [f"{start} cat sat on the mat" for start in ("the", "a", "this", "it was the")] * 6


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_encoder(tmp_path_factory.mktemp("models") / "tiny-encoder")


def train(base: Path, folder: Path, *, texts=TEXTS, values=VALUES, **options):
    return train_masked_lm(
        base, texts, held_out=TEXTS[:4], hyperparameters=values, options=RunOptions(folder=folder, **options)
    )


def test_encoder_gets_a_head_that_the_engine_loads(base, tmp_path):
    outcome = train(base, tmp_path)
    loaded = load_folder(outcome.folders["model"], Task.FILL_MASK, device="cpu", dtype=torch.float32)
    inputs = loaded.tokenizer("the [MASK] sat on the mat", return_tensors="pt")
    place = (inputs["input_ids"][0] == loaded.tokenizer.mask_token_id).nonzero()[0]
    assert loaded.tokenizer.decode(loaded.model(**inputs).logits[0, place].argmax(dim=1)) == "cat"


async def test_engine_fills_and_continues_with_the_result(base, tmp_path):
    """As `/v1/fill-mask` does it: light generation without a chat model."""
    outcome = train(base, tmp_path)
    loaded = load_folder(outcome.folders["model"], Task.FILL_MASK, device="cpu", dtype=torch.float32)
    filler = LoadedMaskFiller(loaded.model, loaded.tokenizer, context_window=64)
    filled = await filler.fill(FillMaskRequest(model="m", text="the [MASK] sat on the mat", top_k=2, continue_tokens=1))
    assert filled.text == "the cat sat on the mat" and len(filled.candidates[0]) == 2
    continued = await filler.fill(FillMaskRequest(model="m", text="this cat sat on", top_k=1, continue_tokens=2))
    assert continued.text.startswith("this cat sat on ") and len(continued.candidates) == 2


def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(base, tmp_path):
    values = replace(VALUES, max_steps=8, eval_steps=4)
    whole = train(base, tmp_path / "whole", values=values)
    train(base, tmp_path / "parts", values=values, **StopAfter(2).options)
    resumed = train(base, tmp_path / "parts", values=values)
    assert resumed.result.evaluations == whole.result.evaluations
    assert resumed.result.train_loss == whole.result.train_loss


def test_special_tokens_are_never_masked_and_the_count_is_kept(base):
    loaded = load_base(base, AutoModelForMaskedLM, fresh=("vocab",))
    rows = [np.asarray(ids, dtype=np.int32) for ids in loaded.tokenizer(TEXTS[:4])["input_ids"]]
    values = replace(VALUES, mlm_probability=0.5)
    objective = MaskedLmObjective(loaded, rows, held_out=(), hyperparameters=values)
    for seed in range(20):
        batch = objective._mask(rows, seed=seed)
        assert len(batch.targets) == objective.units(range(4))
        assert not set(batch.targets.tolist()) & set(loaded.tokenizer.all_special_ids)


def test_loss_is_that_of_full_logits(base):
    loaded = load_base(base, AutoModelForMaskedLM, fresh=("vocab",))
    rows = [np.asarray(ids, dtype=np.int32) for ids in loaded.tokenizer(TEXTS[:4])["input_ids"]]
    objective = MaskedLmObjective(loaded, rows, held_out=(), hyperparameters=VALUES)
    loaded.model.eval()
    batch = objective._mask(rows, seed=1)
    logits = loaded.model(**batch.inputs).logits[batch.chosen]
    expected = torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum")
    assert torch.allclose(objective._loss(batch), expected, rtol=1e-5)


def test_held_out_texts_without_a_word_are_done_without(base, tmp_path):
    values, options = replace(VALUES, max_steps=1), RunOptions(folder=tmp_path)
    outcome = train_masked_lm(base, TEXTS, held_out=["", ""], hyperparameters=values, options=options)
    assert outcome.result.evaluations == [] and outcome.folders


def test_texts_without_a_word_are_refused(base, tmp_path):
    with pytest.raises(DataError, match="masked"):
        train(base, tmp_path, texts=["", ""])
