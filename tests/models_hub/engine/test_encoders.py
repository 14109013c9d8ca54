from __future__ import annotations

import asyncio

import pytest

from models_hub.engine.options import ModelSource, Task
from tests.models_hub.engine.builders import WORDS, save_classifier, save_mask_filler

TEXTS = ["good film", "the film was very very bad", "not a good film", "a", "was the film a film?"] * 4


@pytest.fixture
def classifier(tmp_path):
    return {"c": ModelSource(str(save_classifier(tmp_path / "c")), task=Task.CLASSIFICATION)}


@pytest.fixture
def filler(tmp_path):
    return {"f": ModelSource(str(save_mask_filler(tmp_path / "f")), task=Task.FILL_MASK)}


async def classify(client, texts, **fields):
    return await client.post("/v1/classify", {"model": "c", "input": texts, **fields})


async def test_batched_scores_equal_those_of_each_text_alone(serve, classifier):
    client = await serve(classifier)
    alone = [(await classify(client, [text]))[1]["data"][0] for text in TEXTS]
    together = (await classify(client, TEXTS))[1]["data"]
    for one, other in zip(alone, together, strict=True):
        assert [pair["label"] for pair in one] == [pair["label"] for pair in other]
        assert [pair["score"] for pair in one] == pytest.approx([pair["score"] for pair in other], abs=1e-6)


async def test_requests_that_come_together_share_batches_and_get_their_own_answers(serve, classifier):
    client = await serve(classifier, max_batch=32)
    await classify(client, ["a"])
    (entry,) = client.engine._models._entries.values()
    before = entry.loaded.batches
    answers = await asyncio.gather(*(classify(client, [text]) for text in TEXTS))
    assert entry.loaded.batches - before < len(TEXTS)
    expected = (await classify(client, TEXTS))[1]["data"]
    for (status, answer), row in zip(answers, expected, strict=True):
        assert status == 200
        assert answer["data"][0][0]["label"] == row[0]["label"]
        assert answer["data"][0][0]["score"] == pytest.approx(row[0]["score"], abs=1e-6)


async def test_labels_come_best_first_and_sum_to_one(serve, classifier):
    client = await serve(classifier)
    answer = (await classify(client, "good film"))[1]
    (row,) = answer["data"]
    assert {pair["label"] for pair in row} == {"negative", "positive"}
    assert row[0]["score"] >= row[1]["score"]
    assert sum(pair["score"] for pair in row) == pytest.approx(1)
    assert answer["usage"]["prompt_tokens"] == 4
    assert len((await classify(client, ["good film"], top_k=1))[1]["data"][0]) == 1


async def test_text_over_the_window_is_refused_unless_cutting_is_asked_for(serve, classifier):
    client = await serve(classifier)
    status, answer = await classify(client, ["good " * 50])
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert (answer["error"]["context_window"], answer["error"]["prompt_tokens"]) == (32, 52)
    cut = (await classify(client, ["good " * 50], truncate=True))[1]
    assert cut["usage"]["prompt_tokens"] == 32
    assert cut["data"] == (await classify(client, ["good " * 30]))[1]["data"]


@pytest.mark.parametrize(
    "body",
    [{}, {"input": []}, {"input": [1]}, {"input": ["a"], "top_k": 0}, {"input": ["a"] * 257}, {"input": ["\ud800"]}],
)
async def test_bad_classify_requests_are_refused(serve, classifier, body):
    status, answer = await (await serve(classifier)).post("/v1/classify", {"model": "c", **body})
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


async def test_bad_text_fails_its_own_request_only(serve, classifier):
    client = await serve(classifier)
    results = await asyncio.gather(*(classify(client, [text]) for text in ["good", "bad " * 50, "film"]))
    assert [status for status, _ in results] == [200, 400, 200]


async def fill(client, text, **fields):
    return (await client.post("/v1/fill-mask", {"model": "f", "input": text, **fields}))[1]


async def test_each_mask_gets_its_candidates_best_first(serve, filler):
    client = await serve(filler)
    answer = await fill(client, "the [MASK] was [MASK]", top_k=3)
    assert len(answer["data"]) == 2
    for row in answer["data"]:
        assert [pair["score"] for pair in row] == sorted((pair["score"] for pair in row), reverse=True)
        assert len(row) == 3
        assert all(pair["label"] in WORDS and not pair["label"].startswith("[") for pair in row)
    first, second = (row[0]["label"] for row in answer["data"])
    assert answer["text"] == f"the {first} was {second}"


async def test_text_without_a_mask_is_continued_token_by_token(serve, filler):
    client = await serve(filler)
    answer = await fill(client, "the film", continue_tokens=3, top_k=2)
    assert [len(row) for row in answer["data"]] == [2, 2, 2]
    best = [row[0]["label"] for row in answer["data"]]
    assert answer["text"].split()[:5] == ["the", "film", *best]
    assert len((await fill(client, ["the film"]))["data"]) == 5


async def test_text_over_the_window_cannot_be_filled(serve, filler):
    answer = await fill(await serve(filler), "good " * 40)
    assert answer["error"]["code"] == "context_length_exceeded"
