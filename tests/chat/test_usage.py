"""What was used, by day and model; to oneself, and to admins of everybody."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from chat import usage
from chat.errors import InvalidError
from tests.chat.conftest import make_conversation, make_message

URL = "/api/usage"
DAY = date(2026, 3, 2)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def reply(owner, *, model="tiny", status="complete", at=NOON, **fields):
    conversation = make_conversation(owner, "T")
    return make_message(conversation, "Yes", role="assistant", model=model, status=status, created_at=at, **fields)


@pytest.fixture
def used(alice, bob):
    reply(alice, prompt_tokens=10, completion_tokens=5, first_token_ms=100)
    reply(alice, prompt_tokens=1, completion_tokens=2, first_token_ms=300)
    reply(alice, model="other", status="failed", error_code="provider_timeout")
    reply(alice, at=datetime(2026, 3, 3, 0, 0, tzinfo=UTC), prompt_tokens=7, completion_tokens=7)
    reply(bob, prompt_tokens=100, completion_tokens=50, first_token_ms=200)
    make_conversation(alice, "T", "A question is no reply")


def test_replies_and_tokens_are_summed_by_day_and_model(used, alice):
    rows = usage.list_usage(user=alice, since=DAY, until=DAY)
    assert [(row.model, row.replies, row.failed, row.prompt_tokens, row.completion_tokens) for row in rows] == [
        ("other", 1, 1, 0, 0),
        ("tiny", 2, 0, 11, 7),
    ]


def test_both_ends_of_the_period_count_and_the_newest_day_is_first(used, alice):
    rows = usage.list_usage(user=alice, since=DAY, until=date(2026, 3, 3))
    assert [row.day.day for row in rows] == [3, 2, 2]


def test_a_period_that_ends_before_it_begins_is_refused(alice):
    with pytest.raises(InvalidError):
        usage.list_usage(user=alice, since=date(2026, 3, 3), until=DAY)


def test_first_token_times_are_told_by_model(used):
    (times,) = usage.measure_first_tokens(DAY, DAY)
    assert (times.model, times.replies, times.median_ms, times.p95_ms) == ("tiny", 3, 200, 300)


def test_failures_are_counted_by_code(used):
    assert usage.count_failures(DAY, DAY) == {"provider_timeout": 1}


def test_the_api_tells_a_person_of_himself_alone(client, used, alice):
    client.force_login(alice)
    answer = client.get(URL, {"since": "2026-03-02", "until": "2026-03-02"}).json()
    assert [(item["model"], item["replies"], item["user"]) for item in answer["items"]] == [
        ("other", 1, None),
        ("tiny", 2, None),
    ]
    assert client.get(URL, {"everybody": "true"}).status_code == 403
    assert client.get(URL, {"since": "2026-03-03", "until": "2026-03-02"}).json()["code"] == "invalid"


def test_the_api_tells_an_admin_of_everybody(client, used, admin_user):
    client.force_login(admin_user)
    answer = client.get(URL, {"since": "2026-03-02", "until": "2026-03-02", "everybody": "true"}).json()
    assert {(item["user"], item["model"], item["replies"]) for item in answer["items"]} == {
        ("alice", "other", 1),
        ("alice", "tiny", 2),
        ("bob", "tiny", 1),
    }


@pytest.mark.parametrize("query", ["until=0001-01-05", "since=9999-12-01&until=9999-12-31", "since=1999-12-31"])
def test_days_of_no_calendar_are_refused(client, alice, query):
    client.force_login(alice)
    response = client.get(f"/api/usage?{query}")
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
