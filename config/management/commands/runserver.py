"""Daphne's development server, with auto-reload and an embedded Valkey beside it when none runs yet."""

from __future__ import annotations

from typing import Any

from daphne.management.commands.runserver import Command as DaphneCommand

from config.app_settings import get_settings
from config.valkey_server import is_answering, start_beside


class Command(DaphneCommand):
    help = "Develop: pages, API and sockets with auto-reload. Models answer while `manage.py serve_models` runs, too."

    def run(self, **options: Any) -> None:
        """With auto-reload, the process that watches comes here first: its Valkey outlives the ones it restarts."""
        settings = get_settings()
        if not settings.redis_is_embedded or is_answering(settings):
            super().run(**options)
            return
        valkey = start_beside(settings)
        try:
            super().run(**options)
        finally:
            valkey.terminate()
            valkey.wait(timeout=10)
