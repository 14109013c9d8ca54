"""The engine with the real starter model."""

from __future__ import annotations

import asyncio
import json

import pytest

# In none of them are the two likeliest next tokens ever as near as rounding in float32.
QUESTIONS = [
    "What is the capital of France?",
    "Write one sentence about rain.",
    "Count from one to five.",
    "Name three fruits.",
    "Explain gravity to a child in two sentences.",
    "Antworte auf Deutsch: Wie heißt du?",
    "What is 12 + 30?",
    "What colour is the sky?",
]


@pytest.fixture
def smollm2(starter_models):
    return {"smollm2": starter_models["smollm2-135m-instruct"].path}


@pytest.fixture
def alone(starter_models):
    """What the model answers without the engine: transformers' own greedy generation, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = starter_models["smollm2-135m-instruct"].path
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa")

    def answer(question: str, max_new_tokens: int) -> str:
        messages = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
        out = model.generate(**prompt, do_sample=False, max_new_tokens=max_new_tokens)
        return tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)

    return answer


async def test_it_answers_and_stops_by_itself(serve, smollm2):
    client = await serve(smollm2, memory_mb=4096)
    reply = await client.stream("smollm2", "What is the capital of France?", max_tokens=200)
    assert "Paris" in reply.text
    assert reply.finish_reason == "stop"
    assert "<|im_end|>" not in reply.text
    assert reply.usage["completion_tokens"] < 60


async def test_together_every_reply_equals_the_one_alone(serve, smollm2, alone):
    client = await serve(smollm2, memory_mb=4096, max_batch=8)
    replies = await asyncio.gather(*(client.stream("smollm2", question, max_tokens=24) for question in QUESTIONS))
    assert [reply.text for reply in replies] == [alone(question, 24) for question in QUESTIONS]


async def test_bfloat16_answers_too_and_frees_the_place_of_who_hangs_up(serve, smollm2):
    client = await serve(smollm2, memory_mb=4096, max_batch=1, dtype="bfloat16")
    async with client.open("smollm2", "Tell me a very long story.", max_tokens=2000) as events:
        texts = [json.loads(await anext(events)) for _ in range(5)]
    assert len(texts) == 5
    reply = await client.stream("smollm2", "What is the capital of France?", max_tokens=30)
    assert "Paris" in reply.text


async def test_long_prompt_is_read_and_its_beginning_shared(serve, smollm2):
    """The second question about the same long text finds the text's cache pages."""
    client = await serve(smollm2, memory_mb=4096, max_batch=2)
    text = "The lighthouse of Tarn was painted green in 1911. " * 30
    for question in ("What colour is it?", "When was it painted?"):
        assert (await client.stream("smollm2", f"{text}\n\n{question}", max_tokens=10)).text
    (entry,) = client.engine._models._entries.values()
    cache = entry.loaded.loop._manager.batch_processor.cache
    assert cache.use_prefix_sharing
