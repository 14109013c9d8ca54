from __future__ import annotations

import asyncio

import openai
import pytest
from aiohttp import ClientSession

from tests.models_hub.engine.builders import save_random_llama, save_scripted_llama
from tests.models_hub.engine.client import KEY

ALPHABET = b"abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def scripted(tmp_path):
    return save_scripted_llama(tmp_path / "scripted", ALPHABET)


@pytest.fixture
def endless(tmp_path):
    """With room for a reply that is still running when a test looks."""
    return save_scripted_llama(tmp_path / "endless", ALPHABET, endless=True, max_position_embeddings=20_000)


async def test_reply_ends_at_the_stop_token_and_says_usage(serve, scripted):
    client = await serve({"m": scripted})
    status, answer = await client.chat("m", "Hi", max_tokens=100)
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == ALPHABET.decode()
    assert answer["choices"][0]["finish_reason"] == "stop"
    prompt = len("user\nHi\nassistant\n") + 3
    assert answer["usage"] == {"prompt_tokens": prompt, "completion_tokens": 27, "total_tokens": prompt + 27}


async def test_streamed_reply_joins_to_the_whole_one(serve, scripted):
    client = await serve({"m": scripted})
    reply = await client.stream("m", max_tokens=100)
    assert (reply.text, reply.finish_reason, reply.is_done) == (ALPHABET.decode(), "stop", True)
    assert reply.usage["completion_tokens"] == 27
    assert len(reply.deltas) > 1


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_reply_ends_by_length(serve, scripted, name):
    client = await serve({"m": scripted})
    reply = await client.stream("m", **{name: 5})
    assert (reply.text, reply.finish_reason, reply.usage["completion_tokens"]) == ("abcde", "length", 5)


async def test_reply_is_cut_where_the_window_ends(serve, tmp_path):
    client = await serve({"m": save_scripted_llama(tmp_path / "m", b"ab", endless=True, max_position_embeddings=64)})
    reply = await client.stream("m", max_tokens=1000)
    assert reply.finish_reason == "length"
    assert reply.usage["total_tokens"] == 64


async def test_prompt_larger_than_the_window_is_said_with_both_numbers(serve, tmp_path):
    client = await serve({"m": save_random_llama(tmp_path / "m", max_position_embeddings=64)})
    status, answer = await client.chat("m", "x" * 100)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert (answer["error"]["context_window"], answer["error"]["prompt_tokens"]) == (64, 119)
    assert (await client.chat("m", "x" * 10, max_tokens=1))[0] == 200


async def test_stop_string_ends_the_reply_and_is_not_shown(serve, scripted):
    client = await serve({"m": scripted})
    reply = await client.stream("m", stop=["xyz", "fgh"], max_tokens=100)
    assert (reply.text, reply.finish_reason) == ("abcde", "stop")
    assert reply.usage["completion_tokens"] == 8


async def test_thinking_that_the_template_has_opened_is_told(serve, scripted):
    """The model itself writes only where it ends."""
    template = scripted / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant\n", "assistant\n<think>\n"))
    client = await serve({"m": scripted})
    assert (await client.stream("m", max_tokens=3)).text == "<think>\nabc"
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes\n"}]
    assert (await client.stream("m", messages=said, max_tokens=3)).text == "abc"


async def test_last_assistant_message_is_continued(serve, scripted):
    client = await serve({"m": scripted})
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "abcdefgh"}]
    assert (await client.stream("m", messages=messages)).text == ALPHABET.decode()[8:]


async def test_characters_of_many_bytes_arrive_whole(serve, tmp_path):
    text = "a😀é漢"
    client = await serve({"m": save_scripted_llama(tmp_path / "m", text.encode())})
    reply = await client.stream("m")
    assert reply.deltas == list(text)


async def test_character_cut_off_by_length_is_not_shown(serve, tmp_path):
    client = await serve({"m": save_scripted_llama(tmp_path / "m", "a😀".encode())})
    reply = await client.stream("m", max_tokens=3)
    assert (reply.text, reply.finish_reason) == ("a", "length")


async def test_hanging_up_frees_the_place(serve, endless):
    client = await serve({"m": endless}, max_batch=1)
    async with client.open("m", max_tokens=10_000) as events:
        await anext(events)
        assert (await client.facts())["running"] == 1
    facts = await client.until(lambda facts: facts["running"] == 0)
    assert facts["restarts"] == 0
    assert (await client.stream("m", max_tokens=3)).text == "abc"


async def test_hanging_up_while_waiting_leaves_the_queue(serve, endless):
    client = await serve({"m": endless}, max_batch=1)
    async with client.open("m", max_tokens=10_000) as events:
        await anext(events)
        waiting = asyncio.create_task(client.chat("m"))
        await client.until(lambda facts: facts["waiting"] == 1)
        waiting.cancel()
        await client.until(lambda facts: facts["waiting"] == 0)


async def test_requests_beyond_the_batch_wait_in_order(serve, endless):
    client = await serve({"m": endless}, max_batch=2)
    ended: list[int] = []

    async def ask(number: int) -> None:
        reply = await client.stream("m", max_tokens=40)
        assert len(reply.text) == 40
        ended.append(number)

    tasks = []
    for number in range(6):
        tasks.append(asyncio.create_task(ask(number)))
        await client.until(lambda facts, n=number: facts.get("running", 0) + facts.get("waiting", 0) + len(ended) > n)
    await asyncio.gather(*tasks)
    assert [set(ended[i : i + 2]) for i in (0, 2, 4)] == [{0, 1}, {2, 3}, {4, 5}]


async def test_too_many_waiting_are_refused_at_once(serve, endless):
    client = await serve({"m": endless}, max_batch=1, max_waiting=1)
    async with client.open("m", max_tokens=10_000) as events:
        await anext(events)
        waiting = asyncio.create_task(client.chat("m", max_tokens=1))
        await client.until(lambda facts: facts["waiting"] == 1)
        status, answer = await client.chat("m")
        assert (status, answer["error"]["code"], answer["error"]["retryable"]) == (503, "engine_busy", True)
        waiting.cancel()


BAD_CHATS = [
    {},
    {"messages": []},
    {"messages": "Hi"},
    {"messages": [{"role": "user"}]},
    {"messages": [{"role": "robot", "content": "Hi"}]},
    {"messages": [{"role": "user", "content": "\ud800"}]},
    {"messages": [{"role": "user", "content": 7}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
    {"messages": [{"role": "user", "content": "Hi", "name": "bob"}]},
    {"temperature": -0.1},
    {"temperature": 2.1},
    {"temperature": "warm"},
    {"temperature": True},
    {"top_p": 0},
    {"top_p": 1.1},
    {"max_tokens": 0},
    {"max_tokens": 1.5},
    {"max_tokens": 5, "max_completion_tokens": 6},
    {"stop": ["a", "b", "c", "d", "e"]},
    {"stop": ""},
    {"stop": [1]},
    {"seed": "x"},
    {"seed": 2**64},
    {"n": 2},
    {"stream": "yes"},
    {"stream_options": {"include_usage": True}},
    {"stream": True, "stream_options": {"include_obfuscation": True}},
    {"tools": []},
    {"logprobs": True},
    {"frequency_penalty": 0.5},
    {"response_format": {"type": "json_object"}},
]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'"x"', b"[" * 100_000])
async def test_bad_bodies_are_refused(serve, scripted, body):
    client = await serve({"m": scripted})
    for path in ("/v1/chat/completions", "/v1/classify", "/v1/fill-mask", "/v1/tokenize"):
        status, answer = await client.post(path, body)
        assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


async def test_bad_requests_leave_the_others_streaming(serve, endless):
    client = await serve({"m": endless, "gone": "/nonexistent/model"})
    async with client.open("m", max_tokens=2_000) as events:
        await anext(events)
        for fields in BAD_CHATS:
            messages = [{"role": "user", "content": "Hi"}]
            body = {"model": "m", "messages": messages, **fields} if fields else {"model": "m"}
            status, answer = await client.post("/v1/chat/completions", body)
            assert (status, answer["error"]["type"]) == (400, "invalid_request_error"), fields
        assert (await client.chat("nobody"))[1]["error"]["code"] == "model_not_found"
        assert (await client.chat("gone"))[1]["error"]["code"] == "model_not_ready"
        assert (await client.chat("m", "x" * 30_000))[1]["error"]["code"] == "context_length_exceeded"
        received = 0
        async for _ in events:
            received += 1
            if received == 50:
                break
        assert received == 50
    assert (await client.facts())["restarts"] == 0


async def test_empty_text_is_a_message_like_any_other(serve, scripted):
    client = await serve({"m": scripted})
    assert (await client.stream("m", "")).text == ALPHABET.decode()


async def test_text_that_spells_ids_out_of_range_is_refused_before_the_batch(serve, tmp_path):
    """A tokenizer that knows more tokens than the model has embeddings for."""
    from tests.models_hub.engine.builders import byte_tokenizer

    folder = save_scripted_llama(tmp_path / "m", ALPHABET)
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(folder)
    client = await serve({"m": folder})
    status, answer = await client.chat("m", "an <extra> word")
    assert (status, answer["error"]["code"]) == (400, "invalid_value")
    assert (await client.stream("m")).text == ALPHABET.decode()


async def test_seed_repeats_the_draws_whatever_else_runs(serve, tmp_path):
    client = await serve({"m": save_random_llama(tmp_path / "m")})
    draw = {"temperature": 1.0, "top_p": 0.9, "seed": 7, "max_tokens": 30}
    alone = (await client.chat("m", **draw))[1]["choices"][0]["message"]["content"]
    together = await asyncio.gather(*(client.chat("m", **{**draw, "seed": seed}) for seed in (7, 8, 9)))
    texts = [answer["choices"][0]["message"]["content"] for _, answer in together]
    assert texts[0] == alone
    assert len(set(texts)) == 3


async def test_only_the_key_opens_the_engine(serve, scripted):
    client = await serve({"m": scripted})
    async with ClientSession(client.url) as stranger:
        for value in ("", "Bearer wrong", f"Basic {KEY}", "Bearer é"):
            for path in ("/v1/models", "/nothing"):
                async with stranger.get(path, headers={"Authorization": value}) as response:
                    assert response.status == 401
                    assert (await response.json())["error"]["code"] == "invalid_api_key"
        async with stranger.get("/health") as response:
            assert await response.json() == {"status": "ok"}


async def test_models_are_listed_and_unknown_paths_answer_in_the_same_shape(serve, scripted):
    client = await serve({"m": scripted, "a": scripted})
    assert [model["id"] for model in (await client.get("/v1/models"))[1]["data"]] == ["a", "m"]
    assert (await client.get("/nothing"))[1]["error"]["code"] == "unknown_path"
    assert (await client.get("/v1/chat/completions"))[0] == 405


async def test_body_over_the_limit_is_refused(serve, scripted):
    client = await serve({"m": scripted})
    status, answer = await client.chat("m", "x" * (33 * 1024 * 1024))
    assert (status, answer["error"]["code"]) == (413, "request_too_large")


async def test_tokenize_counts_what_the_reply_will_be_charged(serve, scripted):
    client = await serve({"m": scripted})
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi 😀"}]
    counted = (await client.post("/v1/tokenize", {"model": "m", "messages": messages}))[1]
    reply = await client.stream("m", messages=messages)
    assert counted["tokens"] == reply.usage["prompt_tokens"]
    assert counted["context_window"] == 512


async def test_wrong_task_is_refused(serve, scripted):
    client = await serve({"m": scripted})
    status, answer = await client.post("/v1/classify", {"model": "m", "input": ["Hi"]})
    assert (status, answer["error"]["code"]) == (400, "wrong_task")


async def test_openai_sdk_understands_answers_streams_and_errors(serve, scripted):
    engine = await serve({"m": scripted})
    async with openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key=KEY, max_retries=0) as client:
        messages = [{"role": "user", "content": "Hi"}]
        whole = await client.chat.completions.create(model="m", messages=messages, temperature=0)
        assert whole.choices[0].message.content == ALPHABET.decode()
        stream = await client.chat.completions.create(
            model="m", messages=messages, temperature=0, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ALPHABET.decode()
        assert chunks[-1].usage.completion_tokens == 27
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="nobody", messages=messages)
        assert caught.value.code == "model_not_found"


async def test_stopping_fails_what_runs_with_an_error_to_try_again(serve, endless):
    client = await serve({"m": endless})
    async with client.open("m", max_tokens=10_000) as events:
        await anext(events)
        await client.engine.stop()
        last = [data async for data in events][-1]
    assert '"engine_stopping"' in last
    status, answer = await client.chat("m")
    assert (status, answer["error"]["code"]) == (503, "engine_stopping")
    assert (await client.get("/health"))[0] == 503


async def test_default_model_is_warm_before_the_first_request(serve, scripted):
    client = await serve({"m": scripted}, default_model="m")
    await client.until(lambda facts: facts.get("state") == "ready")
    assert (await client.health())["status"] == "ok"
