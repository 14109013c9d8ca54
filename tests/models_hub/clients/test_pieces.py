"""The pure parts of the clients: events out of bytes, thinking apart from answers, text that can be stored, waits."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_hub.base import (
    Finished,
    FinishReason,
    ProviderBadResponseError,
    ProviderRateLimitError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ReasoningDelta,
    TextDelta,
    Usage,
)
from models_hub.clients import retries, sse
from models_hub.clients.answer_reader import AnswerReader
from models_hub.clients.errors import error_from_answer, read_retry_after
from models_hub.clients.retries import Attempts
from models_hub.clients.sse import SseDecoder
from models_hub.clients.thinking import ThinkSplitter
from tests.models_hub.support import make_target


def cut(text, places):
    """The text in pieces, cut at these places."""
    borders = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in pairwise(borders)]


# Events


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1)), st.lists(st.integers()))
def test_events_survive_any_cut(texts, places):
    data = b"".join(b"data: " + json.dumps(text, ensure_ascii=False).encode() + b"\n\n" for text in texts)
    decoder = SseDecoder()
    events = [event for piece in cut(data, places) for event in decoder.feed(piece)]
    assert [json.loads(event) for event in events] == texts


def test_line_separators_inside_an_answer_split_nothing():
    decoder = SseDecoder()
    assert decoder.feed('data: "a\u2028b\u0085c"\n\n'.encode()) == ['"a\u2028b\u0085c"'.encode()]


def test_carriage_returns_comments_and_other_fields_are_understood():
    decoder = SseDecoder()
    assert decoder.feed(b": hi\r\nevent: x\r\ndata:1\r\ndata: 2\r\n\r\n\r\n") == [b"1\n2"]


def test_the_last_event_needs_no_blank_line():
    decoder = SseDecoder()
    assert decoder.feed(b"data: 1") == []
    assert decoder.finish() == [b"1"]


def test_an_event_that_never_ends_is_refused(monkeypatch):
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    with pytest.raises(ProviderBadResponseError):
        SseDecoder().feed(b"data: " + b"x" * 101)


# Thinking


def split(pieces, **values):
    splitter = ThinkSplitter(**values)
    parts = [part for piece in pieces for part in splitter.feed(piece)] + splitter.finish()
    return tuple("".join(p.text for p in parts if isinstance(p, kind)) for kind in (ReasoningDelta, TextDelta))


@given(st.lists(st.integers(), max_size=30))
def test_thinking_is_split_the_same_however_it_is_cut(places):
    text = "\n<think>\nWhat < is </thin > this?</think>\n\nAn <think>answer</think>."
    assert split(cut(text, places)) == ("What < is </thin > this?", "An <think>answer</think>.")


@given(st.text("<think>/ \nx"), st.lists(st.integers(), max_size=10))
def test_whatever_is_written_is_thought_or_answer_as_if_read_whole(text, places):
    beginning = text.lstrip()
    expected = ("", text)
    if beginning.startswith("<think>"):
        thought, _, answer = beginning.removeprefix("<think>").lstrip("\n").partition("</think>")
        expected = (thought, answer.lstrip())
    assert split(cut(text, places)) == expected


def test_a_tag_further_in_is_text():
    assert split(["Write <think>", "x</think>"]) == ("", "Write <think>x</think>")


def test_a_continued_answer_has_no_thinking_of_its_own():
    assert split(["<think>x</think>"], is_continuation=True) == ("", "<think>x</think>")


def test_half_a_tag_at_the_end_is_text():
    assert split(["<thi"]) == ("", "<thi")


def test_thinking_that_never_ends_is_thinking():
    assert split(["<think>on and on </th"]) == ("on and on </th", "")


# Reading answers


def chunk(**delta) -> bytes:
    return json.dumps({"choices": [{"delta": delta, "finish_reason": None}]}).encode()


END = b'{"choices": [{"delta": {}, "finish_reason": "stop"}]}'


def test_neighbours_of_a_kind_are_joined():
    reader = AnswerReader(make_target())
    events = [chunk(reasoning="a"), chunk(reasoning_content="b"), chunk(content="c"), chunk(content="d")]
    assert reader.read(events) == [ReasoningDelta("ab"), TextDelta("cd")]


def test_a_surrogate_pair_cut_in_two_is_one_character():
    reader = AnswerReader(make_target())
    assert reader.read([b'{"choices":[{"delta":{"content":"x\\ud83d"}}]}']) == [TextDelta("x")]
    assert reader.read([b'{"choices":[{"delta":{"content":"\\ude00y"}}]}']) == [TextDelta("😀y")]


@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00"])
def test_half_a_surrogate_pair_can_be_stored(half):
    reader = AnswerReader(make_target())
    event = f'{{"choices":[{{"delta":{{"content":"a{half}b"}}}}]}}'.encode()
    [part] = reader.read([event])
    assert part.text == "a\ufffdb"


def test_a_high_surrogate_at_the_very_end_is_replaced():
    reader = AnswerReader(make_target())
    reader.read([b'{"choices":[{"delta":{"content":"x\\ud83d"}}]}', END])
    assert reader.finish()[0] == TextDelta("\ufffd")


def test_nul_is_dropped():
    assert AnswerReader(make_target()).read([chunk(content="a\0b")]) == [TextDelta("ab")]


def test_usage_beside_the_finish_reason_is_read():
    reader = AnswerReader(make_target())
    fields = json.loads(END) | {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    reader.read([json.dumps(fields).encode(), b"[DONE]", b"not read"])
    assert reader.is_done
    assert reader.finish() == [Finished(FinishReason.STOP, Usage(3, 4))]


@pytest.mark.parametrize(
    "event",
    [
        b"[]",
        b"7",
        b'{"choices": 7}',
        b'{"choices": [7]}',
        b'{"choices": [{"delta": 7}]}',
        b'{"choices": [{"delta": {"content": 7}}]}',
        b'{"choices": [{"delta": {}, "finish_reason": 7}]}',
        b'{"choices": [{"delta": {}, "finish_reason": "error"}]}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_rubbish_is_a_bad_response_and_takes_nothing_with_it(event):
    reader = AnswerReader(make_target())
    assert reader.read([chunk(content="kept"), event, chunk(content="not read")]) == [TextDelta("kept")]
    assert reader.is_done
    with pytest.raises(ProviderBadResponseError):
        reader.finish()


# Errors and waits


@pytest.mark.parametrize("body", [None, "text", [], {}, {"code": 7}, {"message": None}, {"error": "x"}])
@pytest.mark.parametrize("status", [None, 400, 401, 404, 408, 418, 429, 500, 529])
def test_every_refusal_has_a_code_and_a_sentence(status, body):
    error = error_from_answer(make_target(), status, body)
    assert error.code
    assert error.message.endswith(".")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "-1"}, 0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers, seconds):
    assert read_retry_after(headers) == seconds


async def test_waits_grow_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_DELAY", 0.5)
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr(retries, "sleep", sleep)
    attempts = Attempts(max_retries=8, longest_wait=60)
    for _ in range(8):
        await attempts.pause(ProviderUnavailableError("Down."))
    for wait, longest in zip(waits, [0.5, 1, 2, 4, 8, 8, 8, 8], strict=True):
        assert 0.75 * longest <= wait <= longest
    with pytest.raises(ProviderUnavailableError):
        await attempts.pause(ProviderUnavailableError("Down."))


def test_only_passing_faults_are_waited_for():
    attempts = Attempts(max_retries=3, longest_wait=60)
    assert attempts.delay_after(ProviderTimeoutError("Silent.")) is None
    assert attempts.delay_after(ProviderBadResponseError("Rubbish.")) is None
    assert attempts.delay_after(ProviderRateLimitError("Slow down.", retry_after=61)) is None
    assert attempts.delay_after(ProviderRateLimitError("Slow down.", retry_after=60)) == 60
