"""Runs the web process: pages, API, sockets and the replies."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.urls import get_resolver

from config.app_settings import get_settings


class Command(BaseCommand):
    help = "Serve pages, API and sockets on HOST and PORT until SIGTERM or Ctrl-C."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        from chat import replies
        from config.asgi import application
        from config.warm_up import warm_up
        from config.web_server import WebServer
        from models_hub import clients

        async def start() -> None:
            replies.get_hub().start()
            # The first question would wait for it, and every stream with it.
            await warm_up()

        async def stop() -> None:
            await replies.shutdown()
            await clients.close_clients()

        # Loads every page's code now rather than within the first request.
        _ = get_resolver().url_patterns
        settings = get_settings()
        server = WebServer(
            application,
            host=settings.host.strip("[]"),
            port=settings.port,
            on_start=start,
            on_stop=stop,
        )
        try:
            server.run()
        except OSError as error:
            raise CommandError(f"The web process {error}: set HOST or PORT.") from None
