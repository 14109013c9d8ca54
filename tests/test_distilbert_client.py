"""The client of DistilBERT models. Under pytest against a real engine with tiny models; run directly, against what
`.env` configures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()

import pytest

from models_hub import clients
from models_hub.base import ContextLengthExceededError, FinishReason, PromptMessage, ReplyOptions, Role
from models_hub.targets import CLASSIFICATION, ENGINE, FILL_MASK
from tests.models_hub.support import OPTIONS, make_target, read
from tests.support.engine import CLASSIFIER, MASK_FILLER
from tests.support.fixtures import real_engine  # noqa: F401

pytestmark = pytest.mark.engine
HOW_TO = "the starter classifier waits for its fine-tuning; or name a DistilBERT folder in HUGGINGFACE_MODELS."


def ask(text: str) -> list[PromptMessage]:
    return [PromptMessage(Role.USER, text)]


@pytest.fixture
def make(real_engine, settings):  # noqa: F811
    def make(model: str, task: str):
        key = settings.DIALOOP.engine_api_key
        return make_target(model=model, task=task, kind=ENGINE, base_url=real_engine.url, api_key=key)

    return make


@pytest.fixture
async def classifier(make):
    yield make(CLASSIFIER, CLASSIFICATION)
    await clients.close_clients()


@pytest.fixture
async def mask_filler(make):
    yield make(MASK_FILLER, FILL_MASK)
    await clients.close_clients()


async def test_every_text_gets_all_labels_best_first(classifier):
    rows = await clients.get_classifier(classifier).classify(["the film was good", "it was bad"])
    for row in rows:
        assert {score.label for score in row} == {"positive", "negative"}
        assert row[0].score >= row[1].score
        assert sum(score.score for score in row) == pytest.approx(1)


async def test_a_text_is_scored_the_same_alone_and_in_company(classifier):
    model = clients.get_classifier(classifier)
    [alone] = await model.classify(["good"])
    [together, _] = await model.classify(["good", "a very very bad film and i hated it"])
    assert [score.score for score in together] == pytest.approx([score.score for score in alone], abs=1e-5)


async def test_in_a_conversation_it_names_the_best_label_first(classifier):
    answer = await read(clients.open_reply_source(classifier).stream(ask("the film was good"), options=OPTIONS))
    assert answer.text.startswith(answer.labels[0].label)
    assert answer.finished.finish_reason == FinishReason.STOP
    assert answer.finished.usage.prompt_tokens > 0


async def test_too_long_a_text_is_refused(classifier):
    with pytest.raises(ContextLengthExceededError):
        await clients.get_classifier(classifier).classify(["good " * 100])


async def test_each_mask_gets_candidates(mask_filler):
    filled = await clients.get_mask_filler(mask_filler).fill_mask("the [MASK] sat on the [MASK].", top_k=3)
    assert [len(candidates) for candidates in filled] == [3, 3]


async def test_a_message_with_masks_is_filled(mask_filler):
    question = ask("The [MASK] sat on the [MASK].")
    answer = await read(clients.open_reply_source(mask_filler).stream(question, options=OPTIONS))
    assert "[MASK]" not in answer.text
    assert answer.text.startswith(answer.labels[0].label)
    assert answer.finished.finish_reason == FinishReason.STOP


async def test_a_message_without_a_mask_is_continued_by_a_few_tokens(mask_filler):
    options = ReplyOptions(max_new_tokens=4)
    answer = await read(clients.open_reply_source(mask_filler).stream(ask("the cat sat on"), options=options))
    assert answer.text
    assert answer.finished.finish_reason == FinishReason.LENGTH
    assert answer.finished.usage.completion_tokens == 4


async def test_check_finds_both(classifier, mask_filler):
    await clients.open_for_check(classifier).check()
    await clients.open_for_check(mask_filler).check()


if __name__ == "__main__":
    from tests.support.client_script import run

    question = "What a wonderful film!"
    sys.exit(run(ENGINE, [CLASSIFICATION, FILL_MASK], question=question, how_to_configure=HOW_TO))
