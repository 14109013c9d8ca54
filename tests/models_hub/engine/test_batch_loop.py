from __future__ import annotations

import asyncio
import json

import pytest

from tests.models_hub.engine.builders import save_scripted_llama


@pytest.fixture
def endless(tmp_path):
    return save_scripted_llama(tmp_path / "endless", b"abcdefgh", endless=True, max_position_embeddings=20_000)


def running_loop(client):
    """The batching loop of the only model: what a fault would hit."""
    (entry,) = client.engine._models._entries.values()
    return entry.loaded.loop


def break_next_step(client, error: BaseException) -> None:
    processor = running_loop(client)._manager.batch_processor

    def fail() -> bool:
        raise error

    processor.prepare_next_batch = fail


# The library hands out the first kind of death to its requests; the second ends the thread without a word.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("death", [RuntimeError("out of blocks"), KeyboardInterrupt()])
async def test_dead_loop_fails_its_replies_is_rebuilt_and_counted(serve, endless, death):
    client = await serve({"m": endless})
    async with client.open("m", max_tokens=10_000) as first, client.open("m", max_tokens=10_000) as second:
        await anext(first), await anext(second)
        break_next_step(client, death)
        ends = [json.loads([data async for data in events][-1]) for events in (first, second)]
    assert [(end["error"]["code"], end["error"]["retryable"]) for end in ends] == [("engine_restarted", True)] * 2
    assert (await client.stream("m", max_tokens=3)).text == "abc"
    assert (await client.facts())["restarts"] == 1
    assert (await client.health())["restarts"] == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_loop_that_dies_again_and_again_comes_back(serve, endless):
    client = await serve({"m": endless})
    await client.stream("m", max_tokens=1)
    for deaths in (1, 2, 3):
        async with client.open("m", max_tokens=10_000) as events:
            await anext(events)
            break_next_step(client, SystemExit())
            assert "engine_restarted" in [data async for data in events][-1]
        assert (await client.stream("m", max_tokens=3)).text == "abc"
        assert (await client.facts())["restarts"] == deaths


async def test_requests_while_the_loop_is_down_wait_for_it(serve, endless, monkeypatch):
    client = await serve({"m": endless})
    await client.stream("m", max_tokens=1)
    loop = running_loop(client)
    may_build, build = asyncio.Event(), loop._build

    async def build_later() -> None:
        await may_build.wait()
        await build()

    monkeypatch.setattr(loop, "_build", build_later)
    await asyncio.to_thread(loop._manager.stop, hard_stop=True)
    await client.until(lambda facts: facts["restarts"] == 1)
    asked = asyncio.create_task(client.stream("m", max_tokens=3))
    await client.until(lambda facts: facts["running"] == 0)
    assert not asked.done()
    may_build.set()
    assert (await asked).text == "abc"


async def test_full_cache_requeues_replies_without_changing_them(serve, tmp_path):
    """Eight replies want four times the cache: some are set back, none is lost, repeated or cut."""
    folder = save_scripted_llama(tmp_path / "m", b"abcdefgh", endless=True, max_position_embeddings=256)
    client = await serve({"m": folder}, max_batch=8, cache_tokens_per_request=64)
    replies = await asyncio.gather(*(client.stream("m", max_tokens=200) for _ in range(8)))
    assert {reply.text for reply in replies} == {"abcdefgh" * 25}
    assert {reply.finish_reason for reply in replies} == {"length"}
    assert (await client.facts())["restarts"] == 0


async def test_long_prompt_is_read_in_pieces_while_others_go_on(serve, tmp_path):
    folder = save_scripted_llama(tmp_path / "m", b"abcdefgh", endless=True, max_position_embeddings=4096)
    client = await serve({"m": folder}, prefill_tokens=64)
    async with client.open("m", max_tokens=4_000) as events:
        await anext(events), await anext(events)  # the second holds text: its own prompt is read
        sizes: list[int] = []
        first: set[int] = set()
        processor = running_loop(client)._manager.batch_processor
        prepare = processor.inputs_and_outputs.prepare_batch_tensors

        def note_size(requests_in_batch, *args, **kwargs):
            sizes.append(sum(request.query_length for request in requests_in_batch))
            first.add(requests_in_batch[0].query_length)
            return prepare(requests_in_batch, *args, **kwargs)

        processor.inputs_and_outputs.prepare_batch_tensors = note_size
        assert (await client.stream("m", "x" * 1000, max_tokens=3)).text == "abc"
        assert max(sizes) == 64
        assert first == {1}  # the reply that was running has its place in every step
    assert (await client.facts())["restarts"] == 0
