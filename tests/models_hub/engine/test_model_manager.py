from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from models_hub.engine.options import ModelSource, Task
from tests.models_hub.engine.builders import (
    drop_tensor,
    edit_config,
    save_classifier,
    save_headless_encoder,
    save_random_llama,
    save_scripted_llama,
)

# Each weighs 13 MB in float32, with a cache of less than one.
HEAVY = {"intermediate_size": 2000, "max_position_embeddings": 64}


async def loaded(client) -> set[str]:
    models = (await client.health())["models"]
    return {Path(model["source"]).name for model in models if model["state"] == "ready"}


async def test_model_unused_longest_leaves_when_memory_is_needed(serve, tmp_path):
    folders = {name: save_random_llama(tmp_path / name, **HEAVY) for name in "abc"}
    client = await serve(folders, memory_mb=34, max_batch=1)
    for name in "aba":
        await client.chat(name, max_tokens=1)
    assert await loaded(client) == {"a", "b"}
    await client.chat("c", max_tokens=1)
    assert await loaded(client) == {"a", "c"}
    health = await client.health()
    assert health["evictions"] == 1
    assert health["memory_mb"]["used"] <= 34
    assert (await client.chat("b", max_tokens=1))[0] == 200


async def test_model_in_use_is_never_evicted(serve, tmp_path):
    long = {**HEAVY, "max_position_embeddings": 20_000}
    busy = save_scripted_llama(tmp_path / "busy", b"abc", endless=True, **long)
    other = save_random_llama(tmp_path / "other", **HEAVY)
    client = await serve({"busy": busy, "other": other}, memory_mb=34, max_batch=1)
    async with client.open("busy", max_tokens=10_000) as events:
        await anext(events)
        status, answer = await client.chat("other")
        assert (status, answer["error"]["code"], answer["error"]["retryable"]) == (503, "engine_busy", True)
        assert await anext(events)
    await client.until(lambda facts: facts["running"] == 0, "busy")


async def test_model_larger_than_the_budget_is_refused_with_both_numbers(serve, tmp_path):
    client = await serve({"m": save_random_llama(tmp_path / "m", **HEAVY)}, memory_mb=4)
    status, answer = await client.chat("m")
    assert (status, answer["error"]["code"]) == (503, "model_not_ready")
    assert "ENGINE_MEMORY_MB" in answer["error"]["message"]


async def test_many_first_requests_load_once(serve, tmp_path):
    client = await serve({"m": save_random_llama(tmp_path / "m")})
    statuses = [status for status, _ in await asyncio.gather(*(client.chat("m", max_tokens=1) for _ in range(8)))]
    assert statuses == [200] * 8
    assert len((await client.health())["models"]) == 1


async def test_hanging_up_while_it_loads_does_not_stop_the_loading(serve, tmp_path):
    client = await serve({"m": save_random_llama(tmp_path / "m")})
    asked = asyncio.create_task(client.chat("m"))
    await client.until(lambda facts: facts.get("state") == "loading")
    asked.cancel()
    await client.until(lambda facts: facts["state"] == "ready")


@pytest.mark.parametrize("beginning", ["lm_head", "model.layers.1.self_attn"])
async def test_chat_model_with_missing_weights_is_refused(serve, tmp_path, beginning):
    folder = save_random_llama(tmp_path / "m")
    drop_tensor(folder, beginning)
    status, answer = await (await serve({"m": folder})).chat("m")
    assert (status, answer["error"]["code"]) == (503, "model_not_ready")
    assert beginning in answer["error"]["message"]


async def test_classifier_without_a_trained_head_is_refused_and_shown(serve, tmp_path):
    source = ModelSource(str(save_headless_encoder(tmp_path / "m")), task=Task.CLASSIFICATION)
    client = await serve({"m": source})
    status, answer = await client.post("/v1/classify", {"model": "m", "input": ["good"]})
    assert (status, answer["error"]["code"], answer["error"]["retryable"]) == (503, "model_not_ready", False)
    facts = await client.facts()
    assert facts["state"] == "failed"
    assert "classifier" in facts["reason"]


async def test_pickled_weights_are_never_read(serve, tmp_path):
    folder = save_random_llama(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    answer = (await (await serve({"m": folder})).chat("m"))[1]
    assert answer["error"]["code"] == "model_not_ready"
    assert "safetensors" in answer["error"]["message"]


async def test_code_beside_the_weights_is_never_run(serve, tmp_path):
    folder = save_random_llama(tmp_path / "m")
    proof = tmp_path / "it_ran"
    (folder / "evil.py").write_text(f"import pathlib\npathlib.Path({str(proof)!r}).touch()\nclass C: pass\n")
    edit_config(folder, model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C"})
    answer = (await (await serve({"m": folder})).chat("m"))[1]
    assert answer["error"]["code"] == "model_not_ready"
    assert not proof.exists()


async def test_broken_files_are_refused_and_others_still_answer(serve, tmp_path):
    good, cut, empty = (save_scripted_llama(tmp_path / name, b"abc") for name in ("good", "cut", "empty"))
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (empty / "config.json").write_text("{}")
    client = await serve({"good": good, "cut": cut, "empty": empty})
    for name in ("cut", "empty"):
        assert (await client.chat(name))[1]["error"]["code"] == "model_not_ready"
    assert (await client.stream("good")).text == "abc"


async def test_model_without_a_chat_template_cannot_chat(serve, tmp_path):
    folder = save_random_llama(tmp_path / "m")
    (folder / "chat_template.jinja").unlink()
    answer = (await (await serve({"m": folder})).chat("m"))[1]
    assert answer["error"]["code"] == "model_not_ready"
    assert "chat template" in answer["error"]["message"]


@pytest.mark.parametrize("name", ["owner/unknown-model", "no-such-folder", "../outside", "a/b/c", "/nonexistent"])
async def test_model_that_is_nowhere_is_refused_quickly(serve, tmp_path, name):
    """The tests' environment keeps the Hub away."""
    save_random_llama(tmp_path / "outside")
    client = await serve({"m": ModelSource(name)}, model_cache_dir=tmp_path / "cache")
    status, answer = await client.chat("m")
    assert (status, answer["error"]["code"]) == (503, "model_not_ready")


async def test_folder_is_found_under_the_model_cache(serve, tmp_path):
    save_scripted_llama(tmp_path / "cache" / "mine", b"abc")
    client = await serve({"m": ModelSource("mine")}, model_cache_dir=tmp_path / "cache")
    assert (await client.stream("m")).text == "abc"


async def test_failed_load_is_tried_again_after_a_while(serve, tmp_path):
    folder = tmp_path / "late"
    client = await serve({"m": folder}, retry_load_after=0.0)
    assert (await client.chat("m"))[1]["error"]["code"] == "model_not_ready"
    save_scripted_llama(folder, b"abc")
    assert (await client.stream("m")).text == "abc"


async def test_failed_load_is_not_tried_at_every_request(serve, tmp_path):
    folder = tmp_path / "late"
    client = await serve({"m": folder}, retry_load_after=3600.0)
    assert (await client.chat("m"))[1]["error"]["code"] == "model_not_ready"
    save_scripted_llama(folder, b"abc")
    assert (await client.chat("m"))[1]["error"]["code"] == "model_not_ready"


async def test_failing_default_model_keeps_nobody_else_from_being_served(serve, tmp_path):
    models = {"gone": tmp_path / "gone", "m": save_scripted_llama(tmp_path / "m", b"abc")}
    client = await serve(models, default_model="gone")
    await client.until(lambda facts: facts.get("state") == "failed")
    assert (await client.stream("m")).text == "abc"
    assert (await client.get("/health"))[0] == 200


async def test_gpu_that_is_asked_for_and_not_there_is_an_error_at_start(serve, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="USE_GPU"):
        await serve({"m": save_classifier(tmp_path / "m")}, use_gpu="true")
