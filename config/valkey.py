"""Clients of Valkey (or Redis): synchronous ones share a pool per process, asynchronous ones a pool per loop."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from weakref import WeakKeyDictionary

import redis
import redis.asyncio

from config.app_settings import get_settings

# A blocking pool waits for a free connection; the plain one raises when many coroutines ask at once.
MAX_CONNECTIONS = 32
SOCKET_TIMEOUT = 30.0
# Synchronous calls are short and hold up a thread that others wait for: a Valkey that hangs must not stop them too.
SYNC_SOCKET_TIMEOUT = 2.0

_async_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, redis.asyncio.Redis] = WeakKeyDictionary()


def get_valkey() -> redis.asyncio.Redis:
    """The asynchronous client of the running loop."""
    loop = asyncio.get_running_loop()
    if loop not in _async_clients:
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            get_settings().redis_url,
            max_connections=MAX_CONNECTIONS,
            timeout=20,
            socket_timeout=SOCKET_TIMEOUT,
            decode_responses=True,
        )
        _async_clients[loop] = redis.asyncio.Redis.from_pool(pool)
    return _async_clients[loop]


@lru_cache(maxsize=1)
def get_valkey_sync() -> redis.Redis:
    """The synchronous client of this process; safe in threads."""
    pool = redis.BlockingConnectionPool.from_url(
        get_settings().redis_url,
        max_connections=MAX_CONNECTIONS,
        timeout=SYNC_SOCKET_TIMEOUT,
        socket_timeout=SYNC_SOCKET_TIMEOUT,
        decode_responses=True,
    )
    return redis.Redis.from_pool(pool)
