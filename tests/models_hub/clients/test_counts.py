"""Numbers of providers: what cannot be is a bad response, and takes back no answer that is whole."""

from __future__ import annotations

import json

import pytest

from models_hub.base import Finished, ProviderBadResponseError, Usage
from models_hub.clients.answer_reader import AnswerReader
from models_hub.clients.counts import read_scores, read_usage
from tests.models_hub.support import make_target

ABSURD = [{"prompt_tokens": 1, "completion_tokens": -1}, {"prompt_tokens": 2**63, "completion_tokens": 1}]
ABSURD += [{"prompt_tokens": True, "completion_tokens": 1}, {"prompt_tokens": 10**40, "completion_tokens": None}]


def chunk(**fields) -> bytes:
    return json.dumps({"choices": [{"delta": {"content": "word "}}]} | fields).encode()


END = json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]}).encode()


@pytest.mark.parametrize("score", ["NaN", "Infinity", "-Infinity", "-0.1", "1.2", "1e300", "null", '"high"'])
def test_a_score_that_is_no_probability_is_refused(score):
    with pytest.raises(ProviderBadResponseError):
        read_scores([{"label": "good", "score": json.loads(score)}])


def test_scores_come_best_first():
    scores = read_scores([{"label": "a", "score": 0.0}, {"label": "b", "score": 1.0000001}])
    assert [item.label for item in scores] == ["b", "a"]


@pytest.mark.parametrize("usage", ABSURD)
def test_counts_that_cannot_be_are_refused(usage):
    with pytest.raises(ProviderBadResponseError):
        read_usage(usage)


@pytest.mark.parametrize(
    "usage", [None, [], {}, {"prompt_tokens": None, "completion_tokens": 1}, {"prompt_tokens": "1"}]
)
def test_nothing_counted_is_nothing(usage):
    assert read_usage(usage) is None


def test_counts_are_taken():
    assert read_usage({"prompt_tokens": 3, "completion_tokens": 4}) == Usage(3, 4)
    assert read_usage({"prompt_tokens": 3}) == Usage(3, 0)


@pytest.mark.parametrize("usage", ABSURD)
def test_absurd_counts_within_an_answer_end_it(usage):
    reader = AnswerReader(make_target())
    assert reader.read([chunk(usage=usage)])[0].text == "word "
    with pytest.raises(ProviderBadResponseError):
        reader.finish()


@pytest.mark.parametrize("usage", ABSURD)
def test_absurd_counts_behind_an_answer_take_nothing_back(usage):
    reader = AnswerReader(make_target())
    reader.read([chunk(), END, chunk(usage=usage), b"[DONE]"])
    assert isinstance(reader.finish()[-1], Finished)
    assert reader.usage is None
