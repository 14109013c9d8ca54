"""When a failed attempt is tried again, and how long it waits. Only ever before the first token."""

from __future__ import annotations

import random
from asyncio import sleep

import httpx2
import openai

from models_hub.base import ModelHubError, ProviderRateLimitError, ProviderUnavailableError

FIRST_DELAY = 0.5
LONGEST_DELAY = 8.0


class Attempts:
    """The attempts at one request: exponential backoff with jitter, or what the provider asks for."""

    def __init__(self, *, max_retries: int, longest_wait: float) -> None:
        self._left = max_retries
        self._done = 0
        self._longest_wait = longest_wait

    async def pause(self, error: ModelHubError) -> None:
        """Wait before the next attempt; raises the error when there is none to make."""
        delay = self.delay_after(error)
        if self._left == 0 or delay is None:
            raise error
        self._left -= 1
        self._done += 1
        await sleep(delay)

    def delay_after(self, error: ModelHubError) -> float | None:
        """Seconds, or None: waiting would not help.

        A timeout is not tried again, for the person has already waited for all of REQUEST_TIMEOUT. Neither is a
        provider that asks for a longer wait than that.
        """
        if not is_passing(error):
            return None
        retry_after = getattr(error, "retry_after", None)
        if retry_after is not None:
            return retry_after if retry_after <= self._longest_wait else None
        # The jitter keeps a crowd that failed together from coming back together.
        return min(FIRST_DELAY * 2**self._done, LONGEST_DELAY) * random.uniform(0.75, 1.0)  # noqa: S311


def is_passing(error: ModelHubError) -> bool:
    """Whether the same request may well succeed in a moment."""
    cause = error.__cause__
    if getattr(cause, "code", None) == "insufficient_quota":
        return False  # says 429, but means: pay first
    if isinstance(cause, openai.APIStatusError) and cause.response.headers.get("x-should-retry") == "false":
        return False
    if isinstance(error, ProviderRateLimitError | ProviderUnavailableError):
        return True
    return isinstance(cause, httpx2.TransportError)
