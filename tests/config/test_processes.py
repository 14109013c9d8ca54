"""The whole product: what dies comes back, what is asked to end ends, and nothing stays behind."""

import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from config.serve import local_address, optional_programs, supervisor_variables
from tests.support.product import BASE_DIR, Product
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kill
NAMES = {"valkey", "web", "engine", "worker-default", "worker-training", "beat"}
# Every part of /readyz falls silent when its process dies.
PARTS = {"engine": "engine", "worker-default": "worker", "worker-training": "worker", "beat": "beat"}


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    product = Product(tmp_path_factory.mktemp("product"))
    product.set_up()
    product.start()
    yield product
    product.stop()


@pytest.fixture
def ready(product) -> Product:
    if product.supervisor is None:
        product.start()
    product.wait_until_ready()
    return product


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_everything_runs_and_says_so(ready):
    assert set(ready.pids()) == NAMES
    wait_until(lambda: f"Dialoop is ready at {ready.address}" in ready.log.read_text())


def test_only_the_pages_and_the_engine_listen_on_the_network(ready):
    listening = set()
    for pid in [*ready.pids().values(), ready.supervisor.pid]:
        inodes = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                listening.add(int(fields[1].split(":")[1], 16))
    assert listening == {ready.port, ready.engine_port}


def test_files_and_sockets_are_for_the_owner_only(ready):
    assert stat.S_IMODE(ready.settings.runtime_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(ready.settings.data_dir.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", sorted(NAMES))
def test_killed_process_comes_back_and_spares_the_others(ready, name):
    before = ready.pids()
    old = ready.kill(name)
    ready.wait_until_replaced(name, old)
    ready.wait_until_ready()
    after = ready.pids()
    assert {other: pid for other, pid in after.items() if other != name} == {
        other: pid for other, pid in before.items() if other != name
    }


def test_restarting_one_process_by_command(ready):
    before = ready.pids()
    shown = ready.manage("processes", "--restart", "worker-default")
    after = ready.pids()
    assert [name for name in NAMES if before[name] != after[name]] == ["worker-default"]
    assert {line.split()[0] for line in shown.splitlines()} == NAMES


def test_second_start_on_the_same_data_is_refused(ready):
    result = start_again(ready, {})
    assert result.returncode == 1
    assert (
        result.stderr
        == f"dialoop: Dialoop already runs with DATA_DIR {ready.settings.data_dir}; stop it, or set another.\n"
    )


def test_taken_port_is_refused_by_name(ready, tmp_path):
    result = start_again(ready, {"DATA_DIR": str(tmp_path / "var")})
    assert result.returncode == 1
    assert result.stderr.startswith(f"dialoop: PORT {ready.port} on HOST 127.0.0.1 cannot be used")


def start_again(product: Product, changes: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "config.serve"],
        cwd=BASE_DIR,
        env={**product.environment, **changes},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_killed_supervisor_leaves_nothing_behind_and_the_next_start_works(ready):
    pids = ready.pids()
    ready.kill_supervisor()
    wait_until(lambda: not any(is_running(pid) for pid in pids.values()))
    ready.start()
    ready.wait_until_ready()
    assert set(ready.pids()) == NAMES


def test_sigterm_ends_everything_cleanly(ready):
    pids = ready.pids()
    assert ready.stop() == 0
    assert not any(is_running(pid) for pid in pids.values())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ready.port))


def test_ctrl_c_ends_everything_cleanly(ready):
    pids = ready.pids()
    ready.supervisor.send_signal(signal.SIGINT)
    assert ready.supervisor.wait(timeout=60) == 0
    ready.supervisor = None
    assert not any(is_running(pid) for pid in pids.values())


def test_named_servers_are_not_started_here(settings, tmp_path):
    theirs = Product(tmp_path, REDIS_URL="redis://cache.example:6379/0", ENGINE_URL="http://gpu.example:8000").settings
    assert optional_programs(theirs) == []
    ours = Product(tmp_path).settings
    assert optional_programs(ours) == ["supervisord.valkey.conf", "supervisord.engine.conf"]


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://127.0.0.1:"), ("::1", "http://[::1]:")],  # noqa: S104
)
def test_announced_address_reaches_this_machine(tmp_path, host, address):
    product = Product(tmp_path, HOST=host)
    assert local_address(product.settings) == f"{address}{product.port}"
    assert supervisor_variables(product.settings)["DIALOOP_ADDRESS"] == f"{address}{product.port}"
