"""The one contract that every client keeps, whatever it talks to: over real HTTP against the scripted upstream."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models_hub import clients
from models_hub.base import (
    FinishReason,
    LabelScore,
    ModelHubError,
    PromptMessage,
    ProviderAuthenticationError,
    ProviderError,
    ProviderNotFoundError,
    ProviderUnavailableError,
    ReplyOptions,
    Role,
)
from models_hub.targets import CHAT, CLASSIFICATION, ENGINE, FILL_MASK, OPENAI_CHAT
from tests.models_hub.support import OPTIONS, QUESTION, make_target, read

KINDS = [(OPENAI_CHAT, CHAT), (ENGINE, CHAT), (ENGINE, CLASSIFICATION), (ENGINE, FILL_MASK)]
pytestmark = pytest.mark.usefixtures("closing_clients")


@pytest.fixture(params=KINDS, ids=lambda pair: "-".join(pair))
def target(request, upstream):
    kind, task = request.param
    return make_target(upstream, kind=kind, task=task)


def with_model(target, model: str):
    return replace(target, provider_model=model)


async def test_an_answer_is_text_and_then_exactly_one_end(target):
    answer = await read(clients.open_reply_source(target).stream(QUESTION, options=OPTIONS))
    assert answer.text.strip()
    assert answer.finished.finish_reason in {FinishReason.STOP, FinishReason.LENGTH}


async def test_usage_is_reported(target):
    answer = await read(clients.open_reply_source(target).stream(QUESTION, options=OPTIONS))
    assert answer.finished.usage.prompt_tokens > 0


async def test_only_models_that_label_yield_labels(target):
    question = [PromptMessage(Role.USER, "The [MASK] sat.")]
    answer = await read(clients.open_reply_source(target).stream(question, options=OPTIONS))
    if target.task == CHAT:
        assert answer.labels is None
    else:
        assert all(isinstance(label, LabelScore) for label in answer.labels)
        assert list(answer.labels) == sorted(answer.labels, key=lambda label: -label.score)
        assert answer.text.startswith(answer.labels[0].label)


async def test_the_key_goes_along_as_bearer(target, upstream):
    await read(clients.open_reply_source(target).stream(QUESTION, options=OPTIONS))
    assert upstream.requests[0].headers["Authorization"] == "Bearer key-of-the-tests"


async def test_the_models_name_goes_along(target, upstream):
    await read(clients.open_reply_source(target).stream(QUESTION, options=OPTIONS))
    assert upstream.requests[0].body["model"] == "scripted"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("401", ProviderAuthenticationError),
        ("403", ProviderAuthenticationError),
        ("404", ProviderNotFoundError),
        ("500", ProviderUnavailableError),
        ("503", ProviderUnavailableError),
    ],
)
async def test_a_refusal_is_our_error(target, fault, error):
    source = clients.open_reply_source(with_model(target, f"fail={fault}"))
    with pytest.raises(error):
        await read(source.stream(QUESTION, options=OPTIONS))


async def test_no_error_repeats_the_key(target):
    source = clients.open_reply_source(with_model(target, "fail=401"))
    with pytest.raises(ModelHubError) as caught:
        await read(source.stream(QUESTION, options=OPTIONS))
    assert target.api_key not in f"{caught.value!r} {caught.value.message} {caught.value.detail} {target!r}"


async def test_nobody_there_is_unavailable(target):
    source = clients.open_reply_source(replace(target, base_url="http://127.0.0.1:9"))
    with pytest.raises(ProviderUnavailableError):
        await read(source.stream(QUESTION, options=OPTIONS))


async def test_a_web_page_is_a_bad_response(target):
    source = clients.open_reply_source(with_model(target, "fail=html"))
    with pytest.raises(ProviderError) as caught:
        await read(source.stream(QUESTION, options=OPTIONS))
    assert caught.value.code == "provider_bad_response"


async def test_check_passes_when_the_model_is_there(target):
    await clients.open_for_check(target).check()


async def test_check_fails_when_nobody_is_there(target):
    with pytest.raises(ProviderUnavailableError):
        await clients.open_for_check(replace(target, base_url="http://127.0.0.1:9")).check()


async def test_check_fails_for_a_wrong_key(target, upstream):
    upstream.script = "fail=401"
    with pytest.raises(ProviderAuthenticationError):
        await clients.open_for_check(target).check()


async def test_tokens_are_counted_or_not_known(target):
    count = await clients.open_reply_source(target).count_tokens(QUESTION)
    assert count is None or count > 0


async def test_options_out_of_the_ordinary_are_taken(target):
    options = ReplyOptions(max_new_tokens=3, temperature=0.0, top_p=0.5, stop=("x",), seed=7)
    answer = await read(clients.open_reply_source(target).stream(QUESTION, options=options))
    assert answer.text.strip()
