"""`python -m config.serve`: checks that this instance can start, then becomes its supervisord, in the foreground."""

from __future__ import annotations

import os
import resource
import shlex
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from supervisor import supervisord

from config.app_settings import LOOPBACK, AppSettings, get_settings
from config.runtime_dir import create_runtime_dir

BASE_DIR = Path(__file__).resolve().parent.parent
WANTED_OPEN_FILES = 8192


def main() -> None:
    settings = get_settings()
    create_runtime_dir(settings.runtime_dir)
    refuse_second_start(settings)
    refuse_taken_port(settings)
    log_path(settings).mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ.update(supervisor_variables(settings))
    options = ["--configuration", str(BASE_DIR / "config" / "supervisord.conf")]
    if os.getuid() == 0:
        options += ["--user", "0"]  # said aloud, or supervisord complains at every start
    supervisord.main(options)


def supervisor_variables(settings: AppSettings) -> dict[str, str]:
    """What `supervisord.conf` takes from the settings, which are read in one place only."""
    tied = [sys.executable, "-I", "-S", str(BASE_DIR / "config" / "tied.py"), str(os.getpid())]
    return {
        "DIALOOP_BASE": str(BASE_DIR),
        "DIALOOP_RUNTIME": str(settings.runtime_dir),
        "DIALOOP_LOGS": str(log_path(settings)),
        "DIALOOP_RUN": shlex.join([*tied, sys.executable]),
        "DIALOOP_RUN_BEHIND": shlex.join([*tied, "nice", "-n", "5", sys.executable]),
        "DIALOOP_INCLUDE": " ".join(optional_programs(settings)),
        "DIALOOP_OPEN_FILES": str(open_files_limit()),
        "DIALOOP_TRAINING_WORKERS": str(settings.training_workers),
        "DIALOOP_ADDRESS": local_address(settings),
        "DIALOOP_PUBLIC_ADDRESS": settings.public_url or local_address(settings),
    }


def optional_programs(settings: AppSettings) -> list[str]:
    """The parts that run here only when no other server was named for them."""
    valkey = ["supervisord.valkey.conf"] if settings.redis_is_embedded else []
    engine = ["supervisord.engine.conf"] if urlsplit(settings.engine_url).hostname in LOOPBACK else []
    return valkey + engine


def local_address(settings: AppSettings) -> str:
    """An address that reaches the web process from this machine, whatever it listens on."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://[{host}]:{settings.port}" if ":" in host.strip("[]") else f"http://{host}:{settings.port}"


def log_path(settings: AppSettings) -> Path:
    return settings.data_dir / "logs"


def supervisor_socket(settings: AppSettings) -> Path:
    return settings.runtime_dir / "supervisor.sock"


def open_files_limit() -> int:
    """As many open files as allowed, within reason: each socket of each tab is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return WANTED_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_OPEN_FILES)


def refuse_second_start(settings: AppSettings) -> None:
    """Raises ImproperlyConfigured when a supervisord of this DATA_DIR is alive; what a killed one left is no matter."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(supervisor_socket(settings)))
        except OSError:
            return
    raise ImproperlyConfigured(f"Dialoop already runs with DATA_DIR {settings.data_dir}; stop it, or set another.")


def refuse_taken_port(settings: AppSettings) -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host.strip("[]"), settings.port))
        except OSError as error:
            raise ImproperlyConfigured(
                f"PORT {settings.port} on HOST {settings.host} cannot be used ({error.strerror}); set another."
            ) from None


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        main()
    except ImproperlyConfigured as error:
        sys.exit(f"dialoop: {error}")
