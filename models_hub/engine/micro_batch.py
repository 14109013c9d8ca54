"""Gathers single items that arrive together into batches for one function that works on many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class MicroBatcher(Generic[Item, Result]):
    """`work` runs in a thread, one batch at a time. An item waits at most `window` seconds for company."""

    def __init__(
        self, work: Callable[[Sequence[Item]], list[Result]], *, max_items: int = 32, window: float = 0.004
    ) -> None:
        self._work = work
        self._max_items = max_items
        self._window = window
        self._queue: asyncio.Queue[tuple[Item, asyncio.Future[Result]]] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None
        self.batches = 0

    def start(self) -> None:
        self._worker = asyncio.create_task(self._run())

    def stop(self, error: Exception) -> None:
        if self._worker is not None:
            self._worker.cancel()
        while not self._queue.empty():
            _fail(self._queue.get_nowait()[1], error)

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """The results in the items' order. Cancelled, its items that have not begun are dropped."""
        futures = [asyncio.get_running_loop().create_future() for _ in items]
        for pair in zip(items, futures, strict=True):
            self._queue.put_nowait(pair)
        return await asyncio.gather(*futures)

    async def _run(self) -> None:
        while True:
            batch = [await self._queue.get()]
            if self._queue.empty():
                await asyncio.sleep(self._window)
            while len(batch) < self._max_items and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._answer([pair for pair in batch if not pair[1].done()])

    async def _answer(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        if not batch:
            return
        self.batches += 1
        futures = [future for _, future in batch]
        try:
            results = await asyncio.to_thread(self._work, [item for item, _ in batch])
        except asyncio.CancelledError as error:
            for future in futures:
                _fail(future, error)
            raise
        except Exception as error:  # it belongs to those who wait, not to the worker, which must live on
            for future in futures:
                _fail(future, error)
            return
        for future, result in zip(futures, results, strict=True):
            if not future.done():
                future.set_result(result)


def _fail(future: asyncio.Future[Result], error: BaseException) -> None:
    if future.done():
        return
    if isinstance(error, asyncio.CancelledError):
        future.cancel()
    else:
        future.set_exception(error)
