"""The client of local Hugging Face models. Under pytest against a real engine with the starter model; run directly,
against the engine and the models that `.env` configures."""

from __future__ import annotations

import os
import sys
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()

import pytest

from models_hub import clients
from models_hub.base import (
    ContextLengthExceededError,
    FinishReason,
    PromptMessage,
    ProviderNotFoundError,
    ReplyOptions,
    Role,
)
from models_hub.targets import CHAT, ENGINE
from tests.models_hub.support import make_target, read
from tests.support.engine import CHAT_MODEL
from tests.support.fixtures import real_engine  # noqa: F401

pytestmark = pytest.mark.engine
QUESTION = [PromptMessage(Role.USER, "What is the capital of France? Answer in one word.")]
GREEDY = ReplyOptions(max_new_tokens=24, temperature=0.0)
HOW_TO = "run `python manage.py setup` (starter model), or name others in HUGGINGFACE_MODELS."


@pytest.fixture
def target(real_engine, settings):  # noqa: F811
    values = {"kind": ENGINE, "base_url": real_engine.url, "api_key": settings.DIALOOP.engine_api_key}
    return make_target(model=CHAT_MODEL, **values)


@pytest.fixture
async def model(target):
    yield clients.open_reply_source(target)
    await clients.close_clients()


async def test_the_starter_model_answers_a_question(model):
    answer = await read(model.stream(QUESTION, options=GREEDY))
    assert "Paris" in answer.text
    assert answer.finished.finish_reason == FinishReason.STOP
    assert 0 < answer.finished.usage.completion_tokens <= 24


async def test_a_longest_answer_is_kept(model):
    long_question = [PromptMessage(Role.USER, "Count from one to a hundred.")]
    answer = await read(model.stream(long_question, options=ReplyOptions(max_new_tokens=5, temperature=0.0)))
    assert answer.finished.finish_reason == FinishReason.LENGTH
    assert answer.finished.usage.completion_tokens == 5


async def test_a_prefix_is_continued(model):
    whole = (await read(model.stream(QUESTION, options=GREEDY))).text
    prefix = whole.partition("Paris")[0].rstrip()
    rest = await read(model.stream([*QUESTION, PromptMessage(Role.ASSISTANT, prefix)], options=GREEDY))
    assert rest.text.lstrip().startswith("Paris")


async def test_tokens_are_counted_as_the_model_counts_them(model):
    counted = await model.count_tokens(QUESTION)
    answer = await read(model.stream(QUESTION, options=GREEDY))
    assert counted == answer.finished.usage.prompt_tokens


async def test_too_long_a_conversation_tells_the_window(model):
    with pytest.raises(ContextLengthExceededError) as caught:
        await read(model.stream([PromptMessage(Role.USER, "word " * 9000)], options=GREEDY))
    assert caught.value.context_window < caught.value.prompt_tokens


async def test_check_finds_the_model_and_misses_another(model, target):
    await model.check()
    with pytest.raises(ProviderNotFoundError):
        await clients.open_for_check(replace(target, provider_model="none@1")).check()


async def test_leaving_early_leaves_the_model_to_the_others(model):
    async with aclosing(model.stream(QUESTION, options=ReplyOptions(max_new_tokens=500))) as parts:
        await anext(parts)
    assert (await read(model.stream(QUESTION, options=GREEDY))).text.strip()


if __name__ == "__main__":
    from tests.support.client_script import run

    sys.exit(run(ENGINE, [CHAT], question="What is a loop? Answer in one sentence.", how_to_configure=HOW_TO))
