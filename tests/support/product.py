"""The whole product as a user starts it, in a data folder and on ports of its own."""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from config.app_settings import AppSettings
from config.processes import NotRunningError, list_processes
from tests.support.waiting import wait_until

BASE_DIR = Path(__file__).resolve().parents[2]
START_PATIENCE = 120.0


class Product:
    """`start()` and `stop()` as often as you like; what it keeps stays in `folder` in between."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.port, self.engine_port = free_port(), free_port()
        self.environment = {
            **os.environ,
            "DATA_DIR": str(folder / "var"),
            "DATABASE_URL": "",
            "REDIS_URL": "",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "ENGINE_URL": f"http://127.0.0.1:{self.engine_port}",
            **variables,
        }
        self.address = f"http://127.0.0.1:{self.port}"
        self.settings = _settings_of(self.environment)
        self.log = folder / "terminal.log"
        self.supervisor: subprocess.Popen[bytes] | None = None

    def set_up(self) -> None:
        """Once before the first start: `manage.py setup`."""
        self.manage("setup")

    def manage(self, *arguments: str) -> str:
        """A management command of this instance; its output. Raises CalledProcessError."""
        result = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=BASE_DIR,
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return result.stdout

    def start(self) -> None:
        """Start everything, without waiting."""
        with self.log.open("ab") as log:
            self.supervisor = subprocess.Popen(
                [sys.executable, "-m", "config.serve"], cwd=BASE_DIR, env=self.environment, stdout=log, stderr=log
            )

    def wait_until_ready(self, patience: float = START_PATIENCE) -> None:
        wait_until(self.is_ready, patience=patience, what=f"{self.address} ready")

    def is_ready(self) -> bool:
        parts = self.parts()
        return bool(parts) and all(part["ok"] for part in parts.values())

    def parts(self) -> dict[str, dict]:
        """What /readyz says; nothing while nobody answers."""
        try:
            with urllib.request.urlopen(f"{self.address}/readyz", timeout=5) as response:  # noqa: S310 - our own http address
                return json.load(response)
        except urllib.error.HTTPError as error:
            return json.load(error)
        except OSError:
            return {}

    def pids(self) -> dict[str, int]:
        """The running processes by name; none while supervisord does not answer."""
        try:
            return {process.name: process.pid for process in list_processes(self.settings) if process.pid}
        except NotRunningError:
            return {}

    def kill(self, name: str) -> int:
        """SIGKILL one process. Returns the pid it had."""
        pid = self.pids()[name]
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_until_replaced(self, name: str, old: int) -> None:
        wait_until(lambda: self.pids().get(name, old) != old, what=f"{name} started again")

    def stop(self) -> int | None:
        """SIGTERM, and what supervisord ended with; None when it did not run."""
        if self.supervisor is None:
            return None
        self.supervisor.terminate()
        status = self.supervisor.wait(timeout=60)
        self.supervisor = None
        return status

    def kill_supervisor(self) -> None:
        assert self.supervisor is not None
        self.supervisor.kill()
        self.supervisor.wait()
        self.supervisor = None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _settings_of(environment: Mapping[str, str]) -> AppSettings:
    """The settings as that process will see them."""
    kept = dict(os.environ)
    os.environ.update(environment)
    try:
        return runpy.run_path(str(BASE_DIR / "config" / "settings.py"))["DIALOOP"]
    finally:
        os.environ.clear()
        os.environ.update(kept)
