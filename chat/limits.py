"""How many messages a minute a person may send. Counted in Valkey, so that all processes count together."""

from __future__ import annotations

import time
from functools import lru_cache

import structlog
from limits import RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter
from redis.exceptions import RedisError

from chat.errors import RateLimitedError
from config.app_settings import get_settings
from config.valkey import get_valkey_sync

log = structlog.get_logger(__name__)


@lru_cache(maxsize=1)
def _limiter() -> MovingWindowRateLimiter:
    return MovingWindowRateLimiter(RedisStorage("redis://", connection_pool=get_valkey_sync().connection_pool))


def count_message(user_id: int) -> None:
    """Count one message of this person. Raises RateLimitedError; lets it pass while Valkey is away."""
    per_minute = get_settings().messages_per_minute
    if not per_minute:
        return
    limit = RateLimitItemPerMinute(per_minute)
    try:
        if _limiter().hit(limit, "messages", str(user_id)):
            return
        reset_at = _limiter().get_window_stats(limit, "messages", str(user_id)).reset_time
    except (RedisError, OSError):
        log.warning("rate_limit_not_counted", user_id=user_id)
        return
    wait = max(1, round(reset_at - time.time()))
    raise RateLimitedError(
        f"You have sent {per_minute} messages within a minute. Try again in {wait} seconds.", retry_after=wait
    )
