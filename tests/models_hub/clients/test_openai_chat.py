"""Chat over the OpenAI protocol: every way a provider can misbehave, over real HTTP."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from models_hub.base import (
    ContextLengthExceededError,
    FinishReason,
    ModelHubError,
    ModelNotReadyError,
    PromptMessage,
    ProviderBadResponseError,
    ProviderNotFoundError,
    ProviderRateLimitError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ReplyOptions,
    Role,
    TextDelta,
)
from models_hub.clients import openai_chat, parameters
from models_hub.clients.openai_chat import OpenAIChatModel
from tests.models_hub.support import OPTIONS, QUESTION, Answer, make_target, read
from tests.support.upstream import answer_text

pytestmark = pytest.mark.usefixtures("closing_clients")


def open_model(upstream, script: str = "tokens=12", *, timeout: float = 5, retries: int = 2, **values):
    remember = values.pop("remember", None)
    target = make_target(upstream, script, **values)
    return OpenAIChatModel(target, request_timeout=timeout, max_retries=retries, remember=remember)


async def ask(upstream, script: str, **values) -> Answer:
    options = values.pop("options", OPTIONS)
    return await read(open_model(upstream, script, **values).stream(QUESTION, options=options))


# What arrives


@pytest.mark.parametrize("kind", ["words", "multibyte", "markdown", "wide"])
async def test_the_text_is_what_was_sent(upstream, kind):
    answer = await ask(upstream, f"tokens=200+text={kind}")
    assert answer.text == answer_text(200, kind)
    assert answer.finished.finish_reason == FinishReason.STOP


async def test_noise_between_the_chunks_is_passed_over(upstream):
    assert (await ask(upstream, "tokens=30+noise=yes")).text == answer_text(30)


async def test_text_is_yielded_while_it_is_written(upstream):
    stream = open_model(upstream, "tokens=3+end=hang+at=1").stream(QUESTION, options=OPTIONS)
    async with aclosing(stream) as parts:
        assert await anext(parts) == TextDelta("w0 ")


async def test_usage_is_asked_for_and_reported(upstream):
    answer = await ask(upstream, "tokens=7")
    assert upstream.chats[0].body["stream_options"] == {"include_usage": True}
    assert answer.finished.usage.completion_tokens == 7


async def test_usage_may_be_missing(upstream):
    assert (await ask(upstream, "usage=no")).finished.usage is None


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("tool_calls", FinishReason.STOP),
        ("something_new", FinishReason.STOP),
    ],
)
async def test_finish_reasons_are_translated(upstream, said, meant):
    assert (await ask(upstream, f"finish={said}")).finished.finish_reason == meant


async def test_a_last_assistant_message_is_sent_as_prefix(upstream):
    messages = [*QUESTION, PromptMessage(Role.ASSISTANT, answer_text(4))]
    answer = await read(open_model(upstream, "tokens=9").stream(messages, options=OPTIONS))
    assert answer_text(4) + answer.text == answer_text(9)


async def test_all_options_go_along(upstream):
    options = ReplyOptions(max_new_tokens=5, temperature=0.1, top_p=0.5, stop=("a", "b"), seed=3)
    await ask(upstream, "tokens=2", options=options)
    expected = {"max_tokens": 5, "temperature": 0.1, "top_p": 0.5, "stop": ["a", "b"], "seed": 3}
    assert expected.items() <= upstream.chats[0].body.items()


# Thinking


async def test_reasoning_content_is_kept_apart(upstream):
    answer = await ask(upstream, "tokens=3+reasoning=2")
    assert (answer.reasoning, answer.text) == ("r0 r1 ", answer_text(3))


async def test_think_tags_are_kept_apart_across_chunk_borders(upstream):
    answer = await ask(upstream, "tokens=3+think=2")
    assert (answer.reasoning, answer.text) == ("t0 t1 ", answer_text(3))


@pytest.mark.parametrize("script", ["tokens=0+reasoning=3", "tokens=0+think=3"])
async def test_an_answer_that_is_only_thinking_is_not_empty(upstream, script):
    answer = await ask(upstream, script)
    assert answer.text.strip() == answer.reasoning.strip() != ""
    assert answer.finished.finish_reason == FinishReason.STOP


async def test_an_answer_of_nothing_at_all_is_empty_and_complete(upstream):
    answer = await ask(upstream, "tokens=0")
    assert (answer.text, answer.finished.finish_reason) == ("", FinishReason.STOP)


# Silence, cuts and rubbish


async def test_silence_before_the_first_token_is_a_timeout(upstream):
    with pytest.raises(ProviderTimeoutError):
        await ask(upstream, "fail=hang", timeout=0.2)
    assert len(upstream.chats) == 1, "the person has waited long enough"


async def test_silence_in_the_middle_is_a_timeout_that_keeps_what_came(upstream):
    answer = Answer()
    stream = open_model(upstream, "tokens=8+end=hang+at=4", timeout=0.3).stream(QUESTION, options=OPTIONS)
    with pytest.raises(ProviderTimeoutError):
        await read(stream, answer)
    assert answer.text == answer_text(4)


@pytest.mark.parametrize("at", [0, 4])
async def test_comments_that_keep_a_connection_alive_are_silence(upstream, at):
    answer = Answer()
    stream = open_model(upstream, f"tokens=8+end=ping+at={at}", timeout=0.3).stream(QUESTION, options=OPTIONS)
    async with asyncio.timeout(5):
        with pytest.raises(ProviderTimeoutError):
            await read(stream, answer)
    assert answer.text == answer_text(at)


async def test_an_answer_longer_than_the_timeout_is_no_timeout(upstream):
    answer = await ask(upstream, "tokens=12+rate=20", timeout=0.3)
    assert answer.text == answer_text(12)


@pytest.mark.parametrize("end", ["drop", "garbage", "html"])
async def test_a_broken_stream_is_a_bad_response_that_keeps_what_came(upstream, end):
    answer = Answer()
    stream = open_model(upstream, f"tokens=8+end={end}+at=4").stream(QUESTION, options=OPTIONS)
    with pytest.raises(ProviderBadResponseError):
        await read(stream, answer)
    assert answer.text == answer_text(4)
    assert len(upstream.chats) == 1, "never tried again after the first token"


async def test_an_error_inside_the_stream_is_told_as_what_it_is(upstream):
    with pytest.raises(ProviderUnavailableError) as caught:
        await ask(upstream, "tokens=8+end=error+at=4")
    assert caught.value.detail == "Overloaded."


async def test_a_stream_without_finish_reason_is_a_bad_response(upstream):
    with pytest.raises(ProviderBadResponseError):
        await ask(upstream, "tokens=4+finish=none")


@pytest.mark.parametrize("fault", ["html", "garbage", "json", "bad"])
async def test_an_answer_that_is_none_is_a_bad_response(upstream, fault):
    with pytest.raises(ProviderBadResponseError):
        await ask(upstream, f"fail={fault}")
    assert len(upstream.chats) == 1


async def test_too_long_a_conversation_tells_the_window(upstream):
    with pytest.raises(ContextLengthExceededError) as caught:
        await ask(upstream, "fail=context")
    assert (caught.value.context_window, caught.value.prompt_tokens) == (2048, 3000)


# Trying again


@pytest.mark.parametrize("fault", ["429", "500", "503", "drop"])
async def test_a_passing_fault_is_tried_again(upstream, fault):
    answer = await ask(upstream, f"fail={fault}+times=2+tokens=5")
    assert answer.text == answer_text(5)
    assert len(upstream.chats) == 3


async def test_a_drop_before_the_first_token_is_tried_again(upstream):
    with pytest.raises(ProviderBadResponseError):
        await ask(upstream, "end=drop+at=0+tokens=4")
    assert len(upstream.chats) == 3


async def test_a_fault_that_stays_is_raised_after_the_last_attempt(upstream):
    with pytest.raises(ProviderRateLimitError):
        await ask(upstream, "fail=429", retries=1)
    assert len(upstream.chats) == 2


@pytest.mark.parametrize("fault", ["401", "404", "context"])
async def test_a_lasting_fault_is_not_tried_again(upstream, fault):
    with pytest.raises(ModelHubError):
        await ask(upstream, f"fail={fault}")
    assert len(upstream.chats) == 1


async def test_a_longer_wait_than_the_timeout_is_not_waited(upstream):
    with pytest.raises(ProviderRateLimitError) as caught:
        await ask(upstream, "fail=429+retry_after=600")
    assert caught.value.retry_after == 600
    assert len(upstream.chats) == 1


async def test_retry_after_is_waited_for(upstream, monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr("models_hub.clients.retries.sleep", sleep)
    await ask(upstream, "fail=429+times=1+retry_after=3")
    assert waits == [3.0]


# Hanging up


async def test_closing_the_stream_ends_the_request_upstream(upstream):
    stream = open_model(upstream, "tokens=1000+rate=50").stream(QUESTION, options=OPTIONS)
    async with aclosing(stream) as parts:
        await anext(parts)
    await upstream.wait(lambda server: server.chats[0].hung_up)
    assert upstream.chats[0].tokens_sent < 1000


async def test_cancelling_the_reader_ends_the_request_before_the_first_token(upstream):
    task = asyncio.create_task(ask(upstream, "fail=hang"))
    await upstream.wait(lambda server: server.chats)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await upstream.wait(lambda server: server.chats[0].hung_up)


async def test_a_provider_that_forgets_to_hang_up_does_not_hold_the_reply(upstream, monkeypatch):
    monkeypatch.setattr(openai_chat, "SECONDS_FOR_USAGE", 0.1)
    answer = await ask(upstream, "tokens=3+linger=yes", timeout=30)
    assert (answer.text, answer.finished.finish_reason) == (answer_text(3), FinishReason.STOP)


async def test_requests_share_open_connections(upstream):
    model = open_model(upstream, "tokens=2")
    for _ in range(4):
        await read(model.stream(QUESTION, options=OPTIONS))
    assert len({chat.peer for chat in upstream.chats}) == 1


# What providers refuse


async def test_a_refused_limit_is_renamed_at_once_and_remembered(upstream):
    lessons = []
    model = open_model(upstream, "tokens=4+refuses=max_tokens", remember=lambda target, row: lessons.append(row))
    assert (await read(model.stream(QUESTION, options=OPTIONS))).text == answer_text(4)
    await read(model.stream(QUESTION, options=OPTIONS))
    assert [sorted({"max_tokens", "max_completion_tokens"} & chat.body.keys()) for chat in upstream.chats] == [
        ["max_tokens"],
        ["max_completion_tokens"],
        ["max_completion_tokens"],
    ]
    assert lessons == [{"refused": ["max_tokens"]}]


async def test_several_refusals_are_learned_one_after_another(upstream):
    names = "max_tokens,max_completion_tokens,temperature,stream_options"
    answer = await ask(upstream, f"tokens=4+refuses={names}")
    assert answer.text == answer_text(4)
    assert not set(names.split(",")) & upstream.chats[-1].body.keys()


async def test_what_was_learned_before_is_not_sent(upstream):
    await ask(upstream, "tokens=4+refuses=temperature", learned_parameters={"refused": ["temperature"]})
    assert len(upstream.chats) == 1


async def test_a_refused_parameter_we_did_not_send_is_no_endless_loop(upstream):
    with pytest.raises(ProviderBadResponseError):
        await ask(upstream, "refuses=model")
    assert len(upstream.chats) == 1


async def test_openai_itself_is_first_asked_in_the_new_way(upstream):
    target = make_target(upstream)
    assert parameters.Parameters(replace(target, base_url="")).limit == "max_completion_tokens"
    assert parameters.Parameters(replace(target, base_url="https://eu.api.openai.com/v1")).limit != "max_tokens"
    assert parameters.Parameters(replace(target, base_url="https://openai.com.example.org/v1")).limit == "max_tokens"


# Checks


async def test_check_asks_for_a_token_where_models_are_not_listed(upstream):
    upstream.models_are_listed = False
    await open_model(upstream, "tokens=4").check()
    assert upstream.chats[0].body["max_tokens"] == 1


async def test_check_finds_a_missing_model(upstream):
    with pytest.raises(ProviderNotFoundError):
        await open_model(upstream, "fail=404").check()


async def test_not_ready_is_told_apart_from_down(upstream):
    with pytest.raises(ModelNotReadyError):
        await ask(upstream, "fail=not_ready")
