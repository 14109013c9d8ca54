"""One client per kind of provider and task, found by name and imported on first use: SDKs are slow to load."""

from __future__ import annotations

import asyncio
import logging
from importlib import import_module
from typing import Any

from channels.db import database_sync_to_async

from config.app_settings import get_settings
from models_hub.base import ChatModel, MaskFiller, ModelNotReadyError, TextClassifier
from models_hub.learned import remember_parameters
from models_hub.targets import CHAT, CLASSIFICATION, ENGINE, FILL_MASK, OPENAI_CHAT, ModelTarget

logger = logging.getLogger(__name__)

CONNECTIONS = {
    OPENAI_CHAT: "models_hub.clients.openai_chat.OpenAIChatModel",
    ENGINE: "models_hub.clients.transformers_chat.TransformersChatModel",
}
CLASSIFIERS = {ENGINE: "models_hub.clients.distilbert_classifier.DistilBertClassifier"}
MASK_FILLERS = {ENGINE: "models_hub.clients.distilbert_classifier.DistilBertMaskFiller"}
LABEL_REPLIES = {
    CLASSIFICATION: "models_hub.clients.labels_reply.ClassifierReply",
    FILL_MASK: "models_hub.clients.labels_reply.MaskFillerReply",
}


# A check is somebody waiting at a button, or a line of a list: it asks once and does not wait long.
SECONDS_FOR_CHECK = 10.0

_remembering: set[asyncio.Task] = set()


def open_reply_source(target: ModelTarget) -> ChatModel:
    """Whatever the model's task, something that answers a message."""
    settings = get_settings()
    return _open(target, request_timeout=settings.request_timeout, max_retries=settings.max_retries)


def open_for_check(target: ModelTarget) -> ChatModel:
    """The same, for its `check()`."""
    return _open(target, request_timeout=min(SECONDS_FOR_CHECK, get_settings().request_timeout), max_retries=0)


def get_chat_model(target: ModelTarget) -> ChatModel:
    settings = get_settings()
    return _connect(target, request_timeout=settings.request_timeout, max_retries=settings.max_retries)


def get_classifier(target: ModelTarget) -> TextClassifier:
    return _load(CLASSIFIERS, target.kind, target)(get_chat_model(target))


def get_mask_filler(target: ModelTarget) -> MaskFiller:
    return _load(MASK_FILLERS, target.kind, target)(get_chat_model(target))


async def check_connection(target: ModelTarget) -> None:
    """The provider answers and takes the key, whatever its models. Raises a ModelHubError."""
    timeout = min(SECONDS_FOR_CHECK, get_settings().request_timeout)
    await _connect(target, request_timeout=timeout, max_retries=0).check_connection()


def preload() -> None:
    """Import the SDK now, in a thread at start-up perhaps, so that the first question does not wait for it."""
    for path in CONNECTIONS.values():
        import_module(path.rpartition(".")[0])
    from models_hub.clients.transport import get_tls_settings

    get_tls_settings()


async def close_clients() -> None:
    """Close the running loop's connections to providers, after what was learned about them is stored."""
    from models_hub.clients.transport import close_clients as close

    loop = asyncio.get_running_loop()
    await asyncio.gather(*(task for task in _remembering if task.get_loop() is loop), return_exceptions=True)
    await close()


def _open(target: ModelTarget, **options: float) -> ChatModel:
    connection = _connect(target, **options)
    if target.task == CHAT:
        return connection
    tasks = CLASSIFIERS if target.task == CLASSIFICATION else MASK_FILLERS
    return _load(LABEL_REPLIES, target.task, target)(_load(tasks, target.kind, target)(connection))


def _connect(target: ModelTarget, **options: float) -> Any:
    return _load(CONNECTIONS, target.kind, target)(target, remember=_remember, **options)


def _remember(target: ModelTarget, learned: dict) -> None:
    """Store it beside the reply, which does not wait."""
    task = asyncio.ensure_future(database_sync_to_async(remember_parameters)(target, learned))
    _remembering.add(task)
    task.add_done_callback(_remembered)


def _remembered(task: asyncio.Task) -> None:
    _remembering.discard(task)
    if not task.cancelled() and task.exception():
        logger.error("what a provider refuses could not be stored", exc_info=task.exception())


def _load(registry: dict[str, str], key: str, target: ModelTarget) -> Any:
    if key not in registry:
        raise ModelNotReadyError(f"The connection of {target.name} cannot do this task ({target.task}).")
    module, _, name = registry[key].rpartition(".")
    return getattr(import_module(module), name)
