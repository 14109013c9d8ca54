"""From conversations to a model folder that the engine loads, with tiny real models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetuning.training.errors import BaseModelError, DataError, ResumeMismatchError
from finetuning.training.events import SamplesWritten, Started
from finetuning.training.hyperparameters import Hyperparameters, Method
from finetuning.training.runs import RunOptions
from finetuning.training.sft import train_sft
from models_hub.engine.loading import load_folder, stop_token_ids
from models_hub.engine.options import Task
from models_hub.starter import verify_manifest
from tests.finetuning.training.builders import LLAMA3, build_model, build_tokenizer, code_words, conversation, save_base
from tests.finetuning.training.toys import Recorder, StopAfter

VALUES = Hyperparameters(
    learning_rate=0.02, max_steps=6, eval_steps=2, lora_dropout=0.2, precision="float32", per_device_train_batch_size=2
)
WORD = [conversation(f"code {p}", "blue") for p in range(8)]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_base(tmp_path_factory.mktemp("models") / "tiny-llama")


def train(
    base: Path,
    folder: Path,
    *,
    data=None,
    held_out=None,
    values: Hyperparameters = VALUES,
    method=Method.LORA_SFT,
    **options,
):
    return train_sft(
        base,
        code_words(24) if data is None else data,
        held_out=held_out or code_words(4),
        hyperparameters=values,
        method=method,
        options=RunOptions(folder=folder, **options),
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory):
    """A model that was taught one answer, and what its run said."""
    recorder = Recorder()
    values = replace(VALUES, max_steps=40, eval_steps=20, lora_dropout=0.0, learning_rate=0.05)
    folder = tmp_path_factory.mktemp("run")
    outcome = train(
        base, folder, data=WORD, held_out=WORD, values=values, progress=recorder, sample_prompts=[WORD[0][:1]]
    )
    return outcome, recorder


@pytest.mark.parametrize("method", [Method.LORA_SFT, Method.FULL_SFT])
def test_training_lowers_the_held_out_loss(base, tmp_path, method):
    outcome = train(base, tmp_path, values=replace(VALUES, max_steps=20), method=method)
    losses = [evaluation["eval_loss"] for evaluation in outcome.result.evaluations]
    assert min(losses) < losses[0] - 0.3


def test_tuned_model_gives_the_taught_answer_and_stops(tuned):
    _, recorder = tuned
    first, last = (recorder.of(SamplesWritten)[position].answers[0] for position in (0, -1))
    assert first.text != "blue"
    assert (last.text, last.has_stopped) == ("blue", True)


def test_engine_loads_the_result_and_it_answers_as_taught(tuned):
    outcome, _ = tuned
    loaded = load_folder(outcome.folders["model"], Task.CHAT, device="cpu", dtype=torch.float32)
    ids = loaded.tokenizer.apply_chat_template(
        WORD[3][:1], add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    written = loaded.model.generate(ids, do_sample=False, max_new_tokens=8)[0, ids.shape[1] :]
    assert loaded.tokenizer.decode(written, skip_special_tokens=True) == "blue"
    assert written[-1].item() in stop_token_ids(loaded)


def test_result_carries_hashes_and_its_origin(tuned, base):
    outcome, _ = tuned
    for folder in outcome.folders.values():
        assert verify_manifest(folder) is not None
        origin = json.loads((folder / "manifest.json").read_text())["origin"]
        assert origin["base"] == base.name and origin["template_hash"] == outcome.template_hash
        assert str(base.parent) not in "".join(file.read_text() for file in folder.glob("*.json"))


def test_base_is_left_as_it_was(base, tmp_path):
    before = weights(base)
    train(base, tmp_path)
    assert are_equal(before, weights(base))


def test_only_the_adapter_is_trained_with_lora(base, tmp_path):
    recorder = Recorder()
    train(base, tmp_path, progress=recorder)
    (started,) = recorder.of(Started)
    assert 0 < started.trainable_parameters < started.parameters / 2


def test_one_batch_of_four_trains_like_four_of_one(base, tmp_path):
    """The rows have different numbers of trained tokens: a mean of means would weigh them wrongly."""
    outcomes = []
    for size, steps in ((4, 1), (1, 4)):
        values = replace(VALUES, per_device_train_batch_size=size, gradient_accumulation_steps=steps, lora_dropout=0.0)
        outcomes.append(train(base, tmp_path / f"of-{size}", values=replace(values, learning_rate=0.001)))
    losses = [[evaluation["eval_loss"] for evaluation in outcome.result.evaluations] for outcome in outcomes]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and losses[0][-1] < losses[0][0]
    assert outcomes[0].result.train_loss == pytest.approx(outcomes[1].result.train_loss, rel=1e-4)


@pytest.mark.parametrize("method", [Method.LORA_SFT, Method.FULL_SFT])
def test_interrupted_and_resumed_run_ends_in_the_same_weights_and_losses(base, tmp_path, method):
    whole = train(base, tmp_path / "whole", method=method)
    stopped = train(base, tmp_path / "parts", method=method, **StopAfter(3).options)
    assert (stopped.result.status, stopped.folders) == ("stopped", {})
    resumed = train(base, tmp_path / "parts", method=method)
    assert resumed.result.evaluations == whole.result.evaluations
    assert resumed.result.train_loss == whole.result.train_loss
    assert are_equal(weights(whole.folders["model"]), weights(resumed.folders["model"]))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data": code_words(23)}, "data"),
        ({"values": replace(VALUES, learning_rate=0.03)}, "hyperparameters"),
        ({"system_prompt": "Be brief."}, "template"),
        ({"method": Method.FULL_SFT}, "method"),
    ],
)
def test_run_with_other_arguments_does_not_resume(base, tmp_path, change, named):
    train(base, tmp_path, **StopAfter(3).options)
    with pytest.raises(ResumeMismatchError) as caught:
        train(base, tmp_path, **change)
    assert named in caught.value.details["changed"]


def test_run_on_another_base_does_not_resume(base, tmp_path):
    train(base, tmp_path / "run", **StopAfter(3).options)
    other = save_base(tmp_path / "tiny-llama", seed=1)
    with pytest.raises(ResumeMismatchError, match="base"):
        train(other, tmp_path / "run")


def test_stop_token_only_the_template_knows_reaches_the_saved_model(tmp_path):
    """Llama 3's base says `<|end_of_text|>`; its template ends turns with `<|eot_id|>`."""
    base = save_base(tmp_path / "llama3", template=LLAMA3)
    outcome = train(base, tmp_path / "run", values=replace(VALUES, max_steps=1))
    loaded = load_folder(outcome.folders["model"], Task.CHAT, device="cpu", dtype=torch.float32)
    assert loaded.tokenizer.convert_tokens_to_ids("<|eot_id|>") in stop_token_ids(loaded)


def test_chat_template_and_system_prompt_are_saved_with_the_version(base, tmp_path):
    outcome = train(base, tmp_path, values=replace(VALUES, max_steps=1), system_prompt="Be brief.")
    folder = outcome.folders["model"]
    loaded = load_folder(folder, Task.CHAT, device="cpu", dtype=torch.float32)
    assert loaded.tokenizer.chat_template == build_tokenizer().chat_template
    assert json.loads((folder / "manifest.json").read_text())["origin"]["system_prompt"] == "Be brief."


def test_adapter_can_be_trained_on(base, tuned, tmp_path):
    outcome, _ = tuned
    again = train_sft(
        base,
        WORD,
        hyperparameters=replace(VALUES, max_steps=1, learning_rate=1e-6),
        adapter=outcome.folders["adapter"],
        options=RunOptions(folder=tmp_path),
    )
    fresh = train_sft(
        base,
        WORD,
        hyperparameters=replace(VALUES, max_steps=1, learning_rate=1e-6),
        options=RunOptions(folder=tmp_path / "fresh"),
    )
    assert again.result.train_loss < 0.5 < fresh.result.train_loss


def test_adapter_of_another_base_is_refused(tuned, tmp_path):
    outcome, _ = tuned
    other = save_base(tmp_path / "other", seed=5)
    with pytest.raises(BaseModelError, match="another base"):
        train_sft(
            other,
            WORD,
            hyperparameters=VALUES,
            adapter=outcome.folders["adapter"],
            options=RunOptions(folder=tmp_path / "run"),
        )


def test_base_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(BaseModelError, match="nowhere"):
        train(tmp_path / "nowhere", tmp_path / "run")


def test_base_without_its_weights_is_refused(base, tmp_path):
    """Layers that a folder lacks would be filled in at random."""
    broken = save_base(tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(BaseModelError, match="lacks weights"):
        train(broken, tmp_path / "run")


def test_no_trainable_row_is_refused(base, tmp_path):
    with pytest.raises(DataError):
        train(base, tmp_path, data=[conversation("a", "b", weight=0)])


def test_held_out_rows_that_cannot_be_used_are_done_without(base, tmp_path):
    outcome = train(base, tmp_path, held_out=[conversation("a", "b", weight=0)], values=replace(VALUES, max_steps=1))
    assert outcome.result.evaluations == [] and outcome.folders
    assert [excluded.code for excluded in outcome.held_out.excluded] == ["trained_share"]


def test_checkpointing_gradients_changes_no_result(base, tmp_path):
    values = replace(VALUES, max_steps=3)
    plain = train(base, tmp_path / "plain", values=values)
    saving = train(base, tmp_path / "saving", values=replace(values, gradient_checkpointing=True))
    assert saving.result.train_loss == pytest.approx(plain.result.train_loss, rel=1e-5)


def test_precision_is_measured_and_kept_over_a_resumption(base, tmp_path):
    values = replace(VALUES, precision="auto")
    stopped = train(base, tmp_path, values=values, **StopAfter(3).options)
    resumed = train(base, tmp_path, values=values)
    assert stopped.result.precision == resumed.result.precision in {"float32", "bfloat16"}


def test_model_can_be_trained_in_bf16(tmp_path):
    base = tmp_path / "half"
    tokenizer = build_tokenizer()
    build_model(tokenizer).to(torch.bfloat16).save_pretrained(base)
    tokenizer.save_pretrained(base)
    outcome = train(base, tmp_path / "run", values=replace(VALUES, max_steps=20, precision="bfloat16"))
    losses = [evaluation["eval_loss"] for evaluation in outcome.result.evaluations]
    assert min(losses) < losses[0] - 0.3
    assert {tensor.dtype for tensor in weights(outcome.folders["model"]).values()} == {torch.bfloat16}
