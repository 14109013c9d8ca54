"""Stops asking a model that keeps failing. Per model slug, so that a faulty one never shuts out its neighbours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from models_hub.base import ProviderUnavailableError

FAILURES_TO_OPEN = 5
SECONDS_OPEN = 10.0


@dataclass
class _State:
    failures: int = 0
    opened_at: float | None = None


class Breaker:
    """Opens after 5 failures in a row. After 10 s one request may try again: its outcome closes or re-opens."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states: dict[str, _State] = {}
        # Replies run in one loop, but checks and admin actions come from threads.
        self._lock = threading.Lock()

    def check(self, slug: str) -> None:
        """Raises ProviderUnavailableError while the model is given a rest; else the caller must report the outcome."""
        with self._lock:
            state = self._states.get(slug)
            if state is None or state.opened_at is None:
                return
            waited = self._clock() - state.opened_at
            if waited >= SECONDS_OPEN:
                # The others wait for this one attempt's outcome, at most as long again.
                state.opened_at = self._clock()
                return
        message = f"{slug} failed {FAILURES_TO_OPEN} times in a row and is given a rest."
        raise ProviderUnavailableError(message, retry_after=SECONDS_OPEN - waited)

    def is_open(self, slug: str) -> bool:
        """Whether the model rests now. When the rest is over it is open to an attempt, and shown as such."""
        state = self._states.get(slug)
        return bool(state and state.opened_at is not None and self._clock() - state.opened_at < SECONDS_OPEN)

    def record_success(self, slug: str) -> None:
        with self._lock:
            self._states.pop(slug, None)

    def record_failure(self, slug: str) -> None:
        with self._lock:
            state = self._states.setdefault(slug, _State())
            state.failures += 1
            if state.failures >= FAILURES_TO_OPEN:
                state.opened_at = self._clock()

    def reset(self) -> None:
        with self._lock:
            self._states.clear()


_breaker = Breaker()
check = _breaker.check
is_open = _breaker.is_open
record_success = _breaker.record_success
record_failure = _breaker.record_failure
reset = _breaker.reset
