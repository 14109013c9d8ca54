"""The hot path's way to the database: one synchronous call on a thread that keeps its connection.

`database_sync_to_async` would reconnect to SQLite at every call (6 ms a send instead of 2). Writers share one thread on
SQLite, which has one writer anyway, so that replies never wait for each other inside SQLite's busy loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, close_old_connections, connection

P = ParamSpec("P")
T = TypeVar("T")
POSTGRES_THREADS = 6
SQLITE_READERS = 2


class DatabaseThreads:
    """A few threads with a database connection each."""

    def __init__(self, name: str, sqlite_threads: int) -> None:
        self._name = name
        self._sqlite_threads = sqlite_threads
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._pool is None:
            threads = self._sqlite_threads if connection.vendor == "sqlite" else POSTGRES_THREADS
            self._pool = ThreadPoolExecutor(threads, thread_name_prefix=self._name)
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(_call, function, *args, **kwargs))

    def close(self) -> None:
        """End the threads and with them their connections. The next call starts new ones."""
        if self._pool is None:
            return
        for _ in range(self._pool._max_workers * 2):
            self._pool.submit(connection.close)
        self._pool.shutdown(wait=True)
        self._pool = None


def _call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return function(*args, **kwargs)
    except (OperationalError, InterfaceError):
        connection.close()  # the next call opens a new one
        raise
    finally:
        if connection.vendor != "sqlite":
            close_old_connections()  # back to the pool


writer = DatabaseThreads("chat-write", 1)
reader = DatabaseThreads("chat-read", SQLITE_READERS)


def close_all() -> None:
    writer.close()
    reader.close()
