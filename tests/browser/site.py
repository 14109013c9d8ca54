"""The web process as a person meets it in the browser, answered by a scripted provider, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.support.product import BASE_DIR, free_port
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

NAME, PASSWORD = "anna", "quiet harbour at dawn 77"
_PREPARE = """
import django, sys
django.setup()
from django.core.management import call_command
from accounts.models import User
from models_hub.environment_sync import sync_from_environment
call_command("migrate", verbosity=0)
call_command("collectstatic", interactive=False, verbosity=0)
sync_from_environment()
User.objects.create_superuser(sys.argv[1], "anna@example.org", sys.argv[2])
"""


class Site:
    """Static files under their hashed names and the strict policy, as in use."""

    def __init__(self, folder: Path, *, redis_url: str) -> None:
        self.upstream = Upstream().start()
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.environment = os.environ | {
            "DATA_DIR": str(folder / "var"),
            "DATABASE_URL": "",
            # Another database of the test Valkey than the one each test ends by emptying.
            "REDIS_URL": redis_url.replace("?db=0", "?db=1"),
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "ENGINE_URL": self.upstream.url,
            "OPENAI_API_KEY": "key",
            "OPENAI_BASE_URL": self.upstream.base_url,
            "OPENAI_MODELS": "scripted,second",
            "DEFAULT_MODEL": "scripted",
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "LOG_LEVEL": "WARNING",
        }
        self.run(_PREPARE, NAME, PASSWORD)
        self.process = self._start_web()

    def run(self, code: str, *arguments: str) -> str:
        """A few lines of Python beside the site; what they printed. Raises CalledProcessError."""
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, cwd=BASE_DIR, env=self.environment, check=True, capture_output=True, text=True)
        return done.stdout

    def kill_web(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart_web(self) -> None:
        self.process = self._start_web()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
        self.upstream.stop()

    def _start_web(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "serve_web"],
            cwd=BASE_DIR,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers, patience=60, what="the page answers")
        return process

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/healthz", timeout=5) as response:  # noqa: S310 - our own address
                return response.status == 200
        except OSError:
            return False
