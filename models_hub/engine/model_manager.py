"""Keeps models loaded under a memory budget: loads on first use, evicts the one used longest ago that nobody uses."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog
import torch

from models_hub.engine.batch_loop import BatchLimits, BatchLoop
from models_hub.engine.chat import ChatTokenizer, LoadedChatModel
from models_hub.engine.devices import Device
from models_hub.engine.encoders import LoadedClassifier, LoadedMaskFiller
from models_hub.engine.errors import EngineBusyError, EngineError, EngineStoppingError, ModelNotReadyError
from models_hub.engine.folders import find_folder
from models_hub.engine.loading import (
    LOAD_ERRORS,
    LoadedFolder,
    cache_bytes_per_token,
    context_window,
    estimate_bytes,
    load_folder,
    stop_token_ids,
)
from models_hub.engine.options import EngineOptions, ModelSource, Task
from models_hub.engine.threads import ThreadGovernor

log = structlog.get_logger(__name__)
LoadedModel = LoadedChatModel | LoadedClassifier | LoadedMaskFiller
MEGABYTE = 1024 * 1024
# Of the whole budget, for the key-value cache of one chat model.
CACHE_SHARE = 0.4


class State(StrEnum):
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass
class Entry:
    """One source and what became of it. `step` and `share` say how far its loading is."""

    source: ModelSource
    state: State = State.LOADING
    step: str = "queued"
    share: float = 0.0
    loaded: LoadedModel | None = None
    error: EngineError | None = None
    bytes: int = 0
    users: int = 0
    used_at: float = field(default_factory=time.monotonic)
    failed_at: float = 0.0
    task: asyncio.Task[None] | None = None


class ModelManager:
    """Belongs to the event loop. One model loads at a time, so that the budget is never counted twice."""

    def __init__(self, options: EngineOptions, device: Device) -> None:
        self._options = options
        self._device = device
        self._entries: dict[ModelSource, Entry] = {}
        self._one_load = asyncio.Lock()
        self._is_stopping = False
        self.evictions = 0

    @asynccontextmanager
    async def use(self, source: ModelSource) -> AsyncIterator[LoadedModel]:
        """The loaded model, kept from eviction meanwhile. Raises `ModelNotReadyError` or `EngineBusyError`."""
        entry = self._find_or_load(source)
        entry.users += 1
        try:
            if entry.task is not None:
                # A caller who hangs up does not end the loading that others may wait for.
                await self._wait_for(entry.task)
            if entry.error is not None:
                raise entry.error
            if entry.loaded is None:
                raise EngineStoppingError("The engine is stopping.")
            yield entry.loaded
        finally:
            entry.users -= 1
            entry.used_at = time.monotonic()

    async def _wait_for(self, task: asyncio.Task[None]) -> None:
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._is_stopping:
                raise EngineStoppingError("The engine is stopping.") from None
            raise

    def describe(self) -> list[dict[str, Any]]:
        return [_describe(entry) for entry in self._entries.values()]

    @property
    def used_bytes(self) -> int:
        return sum(entry.bytes for entry in self._entries.values())

    @property
    def restarts(self) -> int:
        chats = [entry.loaded for entry in self._entries.values() if isinstance(entry.loaded, LoadedChatModel)]
        return sum(chat.loop.restarts for chat in chats)

    async def stop(self) -> None:
        self._is_stopping = True
        loaded = [entry.loaded for entry in self._entries.values() if entry.loaded is not None]
        for entry in self._entries.values():
            if entry.task is not None:
                entry.task.cancel()
        self._entries.clear()
        await asyncio.gather(*(model.stop() for model in loaded))

    def _find_or_load(self, source: ModelSource) -> Entry:
        entry = self._entries.get(source)
        if entry is not None and entry.state is State.FAILED:
            is_fresh = time.monotonic() - entry.failed_at < self._options.retry_load_after
            entry = entry if is_fresh else None
        if entry is None:
            entry = self._entries[source] = Entry(source)
            entry.task = asyncio.create_task(self._load(entry))
        return entry

    async def _load(self, entry: Entry) -> None:
        """Never raises: what went wrong is kept in the entry, for everyone who waits and for the next callers."""
        started = time.monotonic()
        try:
            async with self._one_load:
                await self._load_into(entry)
        except EngineError as error:
            _note_failure(entry, error)
        except LOAD_ERRORS as error:
            name = entry.source.path_or_hub_id
            _note_failure(entry, ModelNotReadyError(f"{name} does not run here: {type(error).__name__}: {error}"))
        else:
            entry.state, entry.step, entry.share = State.READY, "ready", 1.0
            seconds = round(time.monotonic() - started, 2)
            log.info("engine.loaded", source=entry.source.path_or_hub_id, mb=entry.bytes // MEGABYTE, seconds=seconds)
        finally:
            entry.task = None

    async def _load_into(self, entry: Entry) -> None:
        entry.step = "finding"
        folder = await asyncio.to_thread(self._find_folder, entry)
        dtype = self._device.chat_dtype if entry.source.task is Task.CHAT else torch.float32
        entry.bytes = estimate_bytes(folder, dtype)
        await self._make_room(entry)
        entry.step, entry.share = "reading weights", 0.3
        loaded = await asyncio.to_thread(load_folder, folder, entry.source.task, device=self._device.name, dtype=dtype)
        entry.bytes = loaded.bytes
        await self._make_room(entry)
        entry.step, entry.share = "warming up", 0.8
        entry.loaded = await self._bring_up(entry, loaded)

    def _find_folder(self, entry: Entry) -> Path:
        def share_done(share: float) -> None:
            entry.step, entry.share = "downloading", 0.3 * share

        options = self._options
        return find_folder(entry.source, options.model_cache_dir, token=options.hub_token, share_done=share_done)

    async def _bring_up(self, entry: Entry, loaded: LoadedFolder) -> LoadedModel:
        window = context_window(loaded)
        if entry.source.task is Task.CHAT:
            return await self._bring_up_chat(entry, loaded, window)
        if entry.source.task is Task.CLASSIFICATION:
            model: LoadedModel = LoadedClassifier(
                loaded.model, loaded.tokenizer, context_window=window, max_batch=self._options.max_batch
            )
        else:
            model = LoadedMaskFiller(loaded.model, loaded.tokenizer, context_window=window)
        model.start()
        return model

    async def _bring_up_chat(self, entry: Entry, loaded: LoadedFolder, window: int) -> LoadedChatModel:
        if not loaded.tokenizer.chat_template:
            raise ModelNotReadyError(f"{entry.source.path_or_hub_id} has no chat template, so it cannot chat.")
        options = self._options
        limits = self._limits(loaded, window)
        entry.bytes += limits.pages * limits.page_tokens * cache_bytes_per_token(loaded.model)
        await self._make_room(entry)
        stop_ids = stop_token_ids(loaded)
        name = Path(entry.source.path_or_hub_id).name
        before_step = ThreadGovernor(self._device.threads).adjust if self._device.name == "cpu" else _leave_threads
        loop = BatchLoop(loaded.model, stop_ids=stop_ids, limits=limits, name=name, before_step=before_step)
        chat = LoadedChatModel(
            ChatTokenizer(loaded.tokenizer),
            loop,
            # The cache bounds a reply too: a request that does not fit in it would end the loop.
            context_window=min(window, limits.cache_tokens),
            vocabulary_size=loaded.model.get_input_embeddings().num_embeddings,
            stop_ids=stop_ids,
            max_requests=options.max_batch,
            max_waiting=options.max_waiting,
            default_max_tokens=options.default_max_tokens,
        )
        await loop.start()
        try:
            await chat.warm_up()
        except EngineError as error:
            await loop.stop()
            raise ModelNotReadyError(f"{name} does not run: {error.message}") from error
        return chat

    def _limits(self, loaded: LoadedFolder, window: int) -> BatchLimits:
        """A cache for every place in the batch, and for one whole window, as far as the budget goes."""
        options = self._options
        affordable = int(CACHE_SHARE * options.memory_mb * MEGABYTE) // cache_bytes_per_token(loaded.model)
        wanted = max(window, options.max_batch * min(window, options.cache_tokens_per_request))
        limits = BatchLimits(max_requests=options.max_batch, cache_tokens=wanted, prefill_tokens=options.prefill_tokens)
        if affordable >= wanted:
            return limits
        tokens = max(affordable, 2 * limits.page_tokens) // limits.page_tokens * limits.page_tokens
        return BatchLimits(max_requests=options.max_batch, cache_tokens=tokens, prefill_tokens=options.prefill_tokens)

    async def _make_room(self, entry: Entry) -> None:
        """Evict idle models, those used longest ago first, until the budget holds what this one takes."""
        budget = self._options.memory_mb * MEGABYTE
        if entry.bytes > budget:
            needed, allowed = entry.bytes // MEGABYTE + 1, self._options.memory_mb
            raise ModelNotReadyError(f"This model needs {needed} MB, and ENGINE_MEMORY_MB allows {allowed} MB.")
        while self.used_bytes > budget:
            idle = [other for other in self._entries.values() if other.state is State.READY and other.users == 0]
            if not idle:
                raise EngineBusyError("The models in use leave no memory for this one; try again soon.")
            await self._evict(min(idle, key=lambda other: other.used_at))

    async def _evict(self, entry: Entry) -> None:
        del self._entries[entry.source]
        loaded, entry.loaded = entry.loaded, None
        self.evictions += 1
        log.info("engine.evicted", source=entry.source.path_or_hub_id, mb=entry.bytes // MEGABYTE)
        if loaded is not None:
            await loaded.stop()
        del loaded
        gc.collect()


def _leave_threads() -> None:
    """On a GPU the processor's threads have nothing to share."""


def _note_failure(entry: Entry, error: EngineError) -> None:
    entry.state, entry.error, entry.bytes, entry.failed_at = State.FAILED, error, 0, time.monotonic()
    log.warning("engine.load_failed", source=entry.source.path_or_hub_id, code=error.code, reason=error.message)


def _describe(entry: Entry) -> dict[str, Any]:
    facts = {
        "source": entry.source.path_or_hub_id,
        "revision": entry.source.revision,
        "task": entry.source.task.value,
        "state": entry.state.value,
        "step": entry.step,
        "progress": round(entry.share, 3),
        "memory_mb": entry.bytes // MEGABYTE,
        "reason": entry.error.message if entry.error else "",
    }
    if entry.loaded is not None:
        facts["context_window"] = entry.loaded.context_window
    if isinstance(entry.loaded, LoadedChatModel):
        chat = entry.loaded
        facts |= {"running": chat.loop.active, "waiting": chat.waiting, "restarts": chat.loop.restarts}
    return facts
