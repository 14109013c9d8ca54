"""The engine as one object: a catalog of names, a device, the loaded models, and what its routes ask of them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar, cast

import structlog

from models_hub.engine.chat import ChatEvent, LoadedChatModel
from models_hub.engine.devices import choose_device
from models_hub.engine.encoders import FilledText, LabelScore, LoadedClassifier, LoadedMaskFiller
from models_hub.engine.errors import EngineError, EngineStoppingError, ModelNotFoundError, WrongTaskError
from models_hub.engine.formats import ChatRequest, ClassifyRequest, FillMaskRequest, TokenizeRequest
from models_hub.engine.model_manager import MEGABYTE, ModelManager
from models_hub.engine.options import Catalog, EngineOptions, NameList, Task

Loaded = TypeVar("Loaded", LoadedChatModel, LoadedClassifier, LoadedMaskFiller)
TASKS = {
    LoadedChatModel: Task.CHAT,
    LoadedClassifier: Task.CLASSIFICATION,
    LoadedMaskFiller: Task.FILL_MASK,
}
log = structlog.get_logger(__name__)


class Engine:
    """`catalog` tells where a name's model is; it is asked in a thread at each request and may cache as it likes."""

    def __init__(self, catalog: Catalog, *, options: EngineOptions, list_names: NameList = tuple) -> None:
        self._catalog = catalog
        self._list_names = list_names
        self._options = options
        self._device = choose_device(options)
        self._models = ModelManager(options, self._device)
        self._warming: asyncio.Task[None] | None = None
        self._started_at = time.monotonic()
        self.is_stopping = False

    @property
    def options(self) -> EngineOptions:
        return self._options

    async def start(self) -> None:
        """Begin to load the default model; requests are answered meanwhile, and wait for it if they want it."""
        device = self._device
        log.info("engine.started", device=device.name, dtype=str(device.chat_dtype), threads=device.threads)
        if self._options.default_model:
            self._warming = asyncio.create_task(self._warm_up(self._options.default_model))

    async def stop(self) -> None:
        """Refuse what comes and fail what runs. Safe to call twice."""
        if self.is_stopping:
            return
        self.is_stopping = True
        if self._warming is not None:
            self._warming.cancel()
        await self._models.stop()
        log.info("engine.stopped")

    async def reply(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        async with self._use(request.model, LoadedChatModel) as model, aclosing(model.reply(request)) as events:
            async for chat_event in events:
                yield chat_event

    async def count_tokens(self, request: TokenizeRequest) -> tuple[int, int]:
        """The prompt's length and the model's window, both in tokens."""
        async with self._use(request.model, LoadedChatModel) as model:
            return await model.count_tokens(request.messages), model.context_window

    async def classify(self, request: ClassifyRequest) -> tuple[list[list[LabelScore]], int]:
        async with self._use(request.model, LoadedClassifier) as model:
            return await model.classify(request)

    async def fill_mask(self, request: FillMaskRequest) -> FilledText:
        async with self._use(request.model, LoadedMaskFiller) as model:
            return await model.fill(request)

    async def list_names(self) -> list[str]:
        names = await asyncio.to_thread(lambda: list(self._list_names()))
        default = [self._options.default_model] if self._options.default_model else []
        return sorted({*names, *default})

    def describe(self) -> dict[str, Any]:
        """For GET /health: `status` is starting until the default model has been tried, then ok."""
        return {
            "status": self.status,
            "uptime_seconds": round(time.monotonic() - self._started_at, 1),
            "pid": os.getpid(),
            "device": self._device.name,
            "dtype": str(self._device.chat_dtype).removeprefix("torch."),
            "threads": self._device.threads,
            "memory_mb": {"used": self._models.used_bytes // MEGABYTE, "budget": self._options.memory_mb},
            "restarts": self._models.restarts,
            "evictions": self._models.evictions,
            "models": self._models.describe(),
        }

    @property
    def status(self) -> str:
        if self.is_stopping:
            return "stopping"
        is_warming = self._warming is not None and not self._warming.done()
        return "starting" if is_warming else "ok"

    @asynccontextmanager
    async def _use(self, name: str, kind: type[Loaded]) -> AsyncIterator[Loaded]:
        if self.is_stopping:
            raise EngineStoppingError("The engine is stopping.")
        source = await asyncio.to_thread(self._catalog, name)
        if source is None:
            raise ModelNotFoundError(f"There is no model {name!r} here.", param="model")
        task = TASKS[kind]
        if source.task is not task:
            message = f"{name!r} is a model for {source.task.value}, not for {task.value}."
            raise WrongTaskError(message, param="model")
        async with self._models.use(source) as model:
            yield cast(Loaded, model)

    async def _warm_up(self, name: str) -> None:
        try:
            source = await asyncio.to_thread(self._catalog, name)
            if source is None:
                log.warning("engine.no_default_model", model=name)
                return
            async with self._models.use(source):
                log.info("engine.warm", model=name)
        except EngineError as error:
            # It is no reason not to serve the others; /health says it too.
            log.warning("engine.default_model_failed", model=name, code=error.code, reason=error.message)
