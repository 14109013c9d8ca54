"""Runs the engine: local models behind the OpenAI protocol on ENGINE_URL."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, close_old_connections

from config.app_settings import AppSettings, get_settings
from models_hub import services

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Serve this installation's models to the web process on ENGINE_URL until SIGTERM or Ctrl-C."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        settings = get_settings()
        if not settings.engine_api_key:
            raise CommandError("ENGINE_API_KEY is empty: run `python manage.py setup`, which makes one.")
        try:
            asyncio.new_event_loop().run_until_complete(serve(settings))
        except (OSError, ValueError) as error:
            raise CommandError(f"The engine cannot start on {settings.engine_url}: {error}") from None
        leave_now()


async def serve(settings: AppSettings) -> None:
    """Until a signal. Raises `OSError` when the address is taken, `ValueError` for a device that is not there."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = build_server(settings)
    address = urlsplit(settings.engine_url)
    await server.start(address.hostname or "127.0.0.1", address.port or 80)
    await asyncio.to_thread(say_engine_is_up)
    await stop.wait()
    await server.stop()


def say_engine_is_up() -> None:
    try:
        services.say_engine_is_up()
    except DatabaseError:
        logger.warning("engine could not say that it is up; the next check will find it")
    finally:
        close_old_connections()


def build_server(settings: AppSettings) -> Any:
    """Imports torch, which takes seconds."""
    from models_hub.engine.engine import Engine
    from models_hub.engine.options import EngineOptions
    from models_hub.engine.server import Server
    from models_hub.engine_catalog import VersionCatalog

    catalog = VersionCatalog()
    options = EngineOptions(
        model_cache_dir=settings.model_cache_dir,
        api_key=settings.engine_api_key,
        memory_mb=settings.engine_memory_mb,
        max_batch=settings.engine_max_batch,
        use_gpu=settings.use_gpu,
        hub_token=settings.huggingface_api_token,
        default_model=settings.default_model,
        default_max_tokens=settings.max_new_tokens,
    )
    return Server(Engine(catalog, options=options, list_names=catalog.list_names))


def leave_now() -> None:
    """A model that is just being read cannot be interrupted, and Python would wait for its thread."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
