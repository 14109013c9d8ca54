"""The embedded Valkey: private, alone on its files, nothing lost when it is killed, never left behind."""

import fcntl
import os
import runpy
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from django.core.exceptions import ImproperlyConfigured

from config.app_settings import AppSettings
from config.runtime_dir import create_runtime_dir
from config.valkey_server import data_path, is_answering, server_arguments, socket_path, start_beside
from tests.support.waiting import wait_until

BASE_DIR = Path(__file__).resolve().parents[2]


@pytest.fixture
def embedded(tmp_path, monkeypatch) -> AppSettings:
    """The settings of an instance of its own, which a process started now has, too."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "var"))
    monkeypatch.setenv("REDIS_URL", "")
    return runpy.run_path(str(BASE_DIR / "config" / "settings.py"))["DIALOOP"]


@pytest.fixture
def start(embedded) -> Iterator[Callable[[], subprocess.Popen]]:
    started = []

    def starter() -> subprocess.Popen:
        started.append(start_beside(embedded))
        return started[-1]

    yield starter
    for process in started:
        process.kill()
        process.wait()


def client(settings: AppSettings) -> redis.Redis:
    return redis.Redis.from_url(settings.redis_url, decode_responses=True)


def test_only_its_owner_reaches_it(embedded, start):
    start()
    assert stat.S_IMODE(embedded.runtime_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(socket_path(embedded).stat().st_mode) == 0o700
    assert client(embedded).config_get("port") == {"port": "0"}


def test_nothing_acknowledged_waits_in_memory_for_a_slow_disk(embedded, start):
    """With everysec it does, for up to two seconds: killed together with web, it cost words that were on a page."""
    start()
    kept = client(embedded).config_get("appendonly", "appendfsync")
    assert kept == {"appendonly": "yes", "appendfsync": "no"}


def test_memory_is_never_freed_by_forgetting(embedded, start):
    start()
    assert client(embedded).config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_nothing_is_lost_when_it_is_killed(embedded, start):
    process = start()
    client(embedded).set("word", "kept")
    process.kill()
    process.wait()
    assert not is_answering(embedded)
    start()
    assert client(embedded).get("word") == "kept"


def test_ends_cleanly_when_asked(embedded, start):
    process = start()
    process.terminate()
    assert process.wait(timeout=10) == 0
    assert not is_answering(embedded)


def test_its_files_are_locked_while_it_lives(embedded, start):
    process = start()
    with (data_path(embedded) / "server.lock").open("w") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.kill()
        process.wait()
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_is_not_left_behind_by_a_killed_parent(embedded):
    script = (
        "import runpy, time\n"
        "from config.valkey_server import start_beside\n"
        "process = start_beside(runpy.run_path('config/settings.py')['DIALOOP'])\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings"}
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=BASE_DIR, env=environment, stdout=subprocess.PIPE
    ) as parent:
        valkey = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_answering(embedded))
    wait_until(lambda: not is_running(valkey))


def is_running(pid: int) -> bool:
    """False for a process that has ended, whether or not anybody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_is_refused_when_another_server_is_named(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    result = subprocess.run(
        [sys.executable, "-m", "config.valkey_server"], cwd=BASE_DIR, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr == "dialoop: REDIS_URL names another server, so the embedded one is not started.\n"


def test_every_write_is_kept(embedded):
    arguments = server_arguments(embedded)
    assert arguments[arguments.index("--appendonly") + 1] == "yes"
    assert arguments[arguments.index("--dir") + 1] == str(embedded.data_dir / "valkey")


def test_runtime_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "theirs").mkdir()
    trap = tmp_path / "runtime"
    trap.symlink_to(tmp_path / "theirs")
    with pytest.raises(ImproperlyConfigured, match="DATA_DIR"):
        create_runtime_dir(trap)
