"""The breaker: per model, five failures in a row, ten seconds."""

from __future__ import annotations

import pytest

from models_hub.base import ProviderUnavailableError
from models_hub.breaker import FAILURES_TO_OPEN, SECONDS_OPEN, Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(clock)


def fail(breaker: Breaker, slug: str, times: int = FAILURES_TO_OPEN) -> None:
    for _ in range(times):
        breaker.record_failure(slug)


def test_it_opens_after_five_failures_in_a_row(breaker):
    fail(breaker, "a", FAILURES_TO_OPEN - 1)
    breaker.check("a")
    fail(breaker, "a", 1)
    assert breaker.is_open("a")
    with pytest.raises(ProviderUnavailableError) as caught:
        breaker.check("a")
    assert caught.value.retry_after == SECONDS_OPEN


def test_a_success_in_between_starts_the_count_anew(breaker):
    fail(breaker, "a", FAILURES_TO_OPEN - 1)
    breaker.record_success("a")
    fail(breaker, "a", FAILURES_TO_OPEN - 1)
    breaker.check("a")


def test_a_faulty_model_never_shuts_out_another(breaker):
    fail(breaker, "a")
    breaker.check("b")
    assert not breaker.is_open("b")


def test_after_ten_seconds_one_request_tries_again_and_the_others_wait(breaker, clock):
    fail(breaker, "a")
    clock.now = SECONDS_OPEN
    assert not breaker.is_open("a"), "or whoever asks that first would never let it try"
    breaker.check("a")
    assert breaker.is_open("a")
    with pytest.raises(ProviderUnavailableError):
        breaker.check("a")


def test_an_attempt_that_succeeds_closes_it(breaker, clock):
    fail(breaker, "a")
    clock.now = SECONDS_OPEN
    breaker.check("a")
    breaker.record_success("a")
    assert not breaker.is_open("a")
    breaker.check("a")
    breaker.check("a")


def test_an_attempt_that_fails_opens_it_for_as_long_again(breaker, clock):
    fail(breaker, "a")
    clock.now = SECONDS_OPEN
    breaker.check("a")
    breaker.record_failure("a")
    clock.now = 2 * SECONDS_OPEN - 0.1
    with pytest.raises(ProviderUnavailableError):
        breaker.check("a")
    clock.now = 2 * SECONDS_OPEN
    breaker.check("a")


def test_an_attempt_that_never_reports_does_not_keep_it_shut(breaker, clock):
    fail(breaker, "a")
    clock.now = SECONDS_OPEN
    breaker.check("a")
    clock.now = 2 * SECONDS_OPEN
    breaker.check("a")
