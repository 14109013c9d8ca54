"""One model's continuous batching loop: takes requests, hands out tokens, notices its own death and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import structlog
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager, OutputRouter

from models_hub.engine.errors import EngineBusyError, EngineError, EngineStoppingError, LoopDiedError
from models_hub.engine.formats import Sampling
from models_hub.engine.sampling import build_processors

log = structlog.get_logger(__name__)
# At its own level it logs the ids of prompts it drops.
logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
WATCH_SECONDS = 0.2
MAX_PAUSE_SECONDS = 10.0
PATIENCE_SECONDS = 30.0
STOP_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """`prefill_tokens`: how many tokens one step may process, so that a long prompt holds nobody up."""

    max_requests: int
    cache_tokens: int
    prefill_tokens: int = 256
    page_tokens: int = 32

    @property
    def pages(self) -> int:
        return -(-self.cache_tokens // self.page_tokens)


class TokenStream:
    """The tokens of one request, in the batches they came in. Belongs to the event loop."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self._received = 0
        self._arrived: list[int] = []
        self._news = asyncio.Event()
        self._is_finished = False
        self._error: EngineError | None = None

    def push(self, all_tokens: list[int], *, is_finished: bool) -> None:
        self._arrived.extend(all_tokens[self._received :])
        self._received = len(all_tokens)
        self._is_finished = self._is_finished or is_finished
        self._news.set()

    def fail(self, error: EngineError) -> None:
        if not self._is_finished and self._error is None:
            self._error = error
            self._news.set()

    async def batches(self) -> AsyncIterator[list[int]]:
        """Yield what has arrived since the last time. Raises the error that ended the request, if one did."""
        while True:
            await self._news.wait()
            self._news.clear()
            arrived, self._arrived = self._arrived, []
            if arrived:
                yield arrived
            if self._error is not None:
                raise self._error
            if self._is_finished and not self._arrived:
                return


class _Router(OutputRouter):
    """Takes every step's outputs to the event loop in one call. The library's own keeps what nobody collects."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Any) -> None:
        super().__init__()
        self._event_loop = loop
        self._receive = receive

    def deliver(self, output: Any) -> None:
        self.deliver_batch([output])

    def deliver_batch(self, outputs: list[Any]) -> None:
        # The event loop may be gone when the process ends under a running step.
        with contextlib.suppress(RuntimeError):
            self._event_loop.call_soon_threadsafe(self._receive, outputs)


class BatchLoop:
    """Every request must have been validated: one that the library cannot digest ends the loop for everybody."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        stop_ids: frozenset[int],
        limits: BatchLimits,
        name: str,
        before_step: Callable[[], None],
    ) -> None:
        self._model = model
        self._stop_ids = stop_ids
        self._limits = limits
        self._name = name
        self._before_step = before_step
        self._numbers = count(1)
        self._streams: dict[str, TokenStream] = {}
        self._manager: ContinuousBatchingManager | None = None
        self._is_up = asyncio.Event()
        self._is_doubted = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._rebuilds_in_a_row = 0
        self.restarts = 0

    @property
    def active(self) -> int:
        return len(self._streams)

    async def start(self) -> None:
        await self._build()
        self._watcher = asyncio.create_task(self._watch())

    async def submit(self, ids: list[int], *, max_new_tokens: int, sampling: Sampling) -> TokenStream:
        """Queue a validated request. While the loop is being rebuilt this waits for it, but not for ever."""
        while True:
            manager = await self._wait_until_up()
            stream = TokenStream(f"{self._name}-{next(self._numbers)}")
            self._streams[stream.request_id] = stream
            accepted = _is_alive(manager) and manager.add_request(
                ids,
                request_id=stream.request_id,
                max_new_tokens=max_new_tokens,
                streaming=True,
                eos_token_id=sorted(self._stop_ids),
                sampling=sampling,
            )
            if accepted:
                return stream
            # The loop has just died, but this request was never in it.
            self._streams.pop(stream.request_id, None)
            self._doubt()

    async def _wait_until_up(self) -> ContinuousBatchingManager:
        try:
            await asyncio.wait_for(self._is_up.wait(), PATIENCE_SECONDS)
        except TimeoutError as error:
            raise EngineBusyError("The batching loop of this model is down; try again soon.") from error
        if self._is_stopping or self._manager is None:
            raise _stopping()
        return self._manager

    def release(self, stream: TokenStream) -> None:
        """Forget a request. One that still runs is cancelled, which frees its place at the loop's next step."""
        if self._streams.pop(stream.request_id, None) is not None and self._manager is not None:
            self._manager.cancel_request(stream.request_id)

    async def stop(self) -> None:
        """End the loop and fail what is running."""
        if self._watcher is not None:
            self._watcher.cancel()
        self._is_stopping = True
        self._is_up.set()
        self._fail_all(_stopping())
        manager, self._manager = self._manager, None
        if manager is not None:
            await asyncio.to_thread(manager.stop, block=True, timeout=STOP_SECONDS, hard_stop=True)

    def _receive(self, outputs: list[Any]) -> None:
        for output in outputs:
            stream = self._streams.get(output.request_id)
            if stream is None:
                continue
            if output.error is not None:
                stream.fail(_died())
                self._streams.pop(output.request_id)
                self._doubt()
                continue
            stream.push(output.generated_tokens, is_finished=output.is_finished())
            if output.is_finished():
                self._rebuilds_in_a_row = 0
                self._streams.pop(output.request_id)

    def _doubt(self) -> None:
        """Have the watcher look now, and nobody submit before it has."""
        self._is_up.clear()
        self._is_doubted.set()

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_doubted.wait(), WATCH_SECONDS)
            self._is_doubted.clear()
            if self._manager is None or not _is_alive(self._manager):
                await self._rebuild()
            else:
                self._is_up.set()

    async def _rebuild(self) -> None:
        self._is_up.clear()
        self.restarts += 1
        self._rebuilds_in_a_row += 1
        log.error("engine.loop_died", model=self._name, running=self.active, restarts=self.restarts)
        self._fail_all(_died())
        self._manager = None
        gc.collect()
        if self._rebuilds_in_a_row > 1:
            await asyncio.sleep(min(MAX_PAUSE_SECONDS, WATCH_SECONDS * 2**self._rebuilds_in_a_row))
        try:
            await self._build()
        except (RuntimeError, ValueError, MemoryError):
            log.exception("engine.rebuild_failed", model=self._name)

    def _fail_all(self, error: EngineError) -> None:
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(error)

    async def _build(self) -> None:
        router = _Router(asyncio.get_running_loop(), self._receive)
        self._manager = await asyncio.to_thread(self._start_manager, router)
        self._is_up.set()

    def _start_manager(self, router: _Router) -> ContinuousBatchingManager:
        config = GenerationConfig(do_sample=False, eos_token_id=sorted(self._stop_ids) or -1, max_new_tokens=1)
        manager = self._model.init_continuous_batching(
            generation_config=config,
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=self._limits.page_tokens,
                num_blocks=self._limits.pages,
                max_batch_tokens=max(self._limits.prefill_tokens, 2 * self._limits.max_requests),
                max_requests_per_batch=self._limits.max_requests,
                # Synchronous and without graphs: what the sampling processor relies on.
                use_async_batching=False,
                use_cuda_graph=False,
                # Else it looks for attention kernels on the Hub.
                auto_switch_to_flash=False,
            ),
        )
        manager.output_router = router
        manager.logit_processor = build_processors(self._before_step)
        manager.start()
        return manager


def _is_alive(manager: ContinuousBatchingManager) -> bool:
    return manager.is_running() and manager.background_thread_status.can_accept_new_requests() is None


def _died() -> LoopDiedError:
    return LoopDiedError("The engine lost this reply to a fault and has restarted its batching loop; try again.")


def _stopping() -> EngineStoppingError:
    return EngineStoppingError("The engine is stopping.")
