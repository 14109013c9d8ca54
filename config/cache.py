"""Django's cache on Valkey, which may be away for a moment: then it holds nothing, and signing in goes on."""

from __future__ import annotations

from typing import Any

import structlog
from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)


class ForgivingRedisCache(RedisCache):
    """Holds rate limits and nothing that could not be counted anew."""

    def add(self, *args: Any, **kwargs: Any) -> bool:
        """True when nobody can be asked: whoever takes a lock with it must not wait for ever."""
        return self._try(super().add, True, *args, **kwargs)

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        return self._try(super().get, default, key, default, version)

    def set(self, *args: Any, **kwargs: Any) -> None:
        self._try(super().set, None, *args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> bool:
        return self._try(super().delete, False, *args, **kwargs)

    def _try(self, call: Any, otherwise: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except (RedisError, OSError) as error:
            log.warning("cache_away", error=type(error).__name__)
            return otherwise
