"""/healthz and /readyz against a real Valkey, with each part missing in turn."""

import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import redis

from config import heartbeats
from config.heartbeats import TTL_SECONDS, WORKER_QUEUES, heartbeat_key, worker_key, write_heartbeat
from config.valkey import get_valkey_sync

pytestmark = pytest.mark.django_db


class _EngineHandler(BaseHTTPRequestHandler):
    status = 200
    authorization: str | None = None

    def do_GET(self) -> None:
        type(self).authorization = self.headers["Authorization"]
        self.send_response(self.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def engine(settings):
    handler = type("Handler", (_EngineHandler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.DIALOOP = replace(settings.DIALOOP, engine_url=f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def heartbeating():
    for queue in WORKER_QUEUES:
        write_heartbeat(worker_key(queue))
    write_heartbeat(heartbeat_key("beat"))


def states(response) -> dict[str, bool]:
    return {part: state["ok"] for part, state in response.json().items()}


def test_ready_when_every_part_answers(client, engine, heartbeating):
    response = client.get("/readyz")
    assert states(response) == dict.fromkeys(("database", "valkey", "engine", "worker", "beat"), True)
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"


def test_engine_is_asked_with_our_key(client, engine, settings):
    client.get("/readyz")
    assert engine.authorization == f"Bearer {settings.DIALOOP.engine_api_key}"


def test_loading_engine_is_not_ready(client, engine, heartbeating):
    engine.status = 503
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["engine"] == {"ok": False, "reason": "status 503"}
    assert all(ok for part, ok in states(response).items() if part != "engine")


def test_missing_engine_is_not_ready(client, heartbeating):
    response = client.get("/readyz")
    assert response.status_code == 503
    assert [part for part, ok in states(response).items() if not ok] == ["engine"]


def test_silent_engine_is_down_and_others_are_told(client, heartbeating, settings):
    """It accepts the connection and says nothing: the answer comes all the same."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as deaf:  # it listens, nobody serves
        settings.DIALOOP = replace(settings.DIALOOP, engine_url=f"http://127.0.0.1:{deaf.server_port}")
        response = client.get("/readyz")
    assert [part for part, ok in states(response).items() if not ok] == ["engine"]


@pytest.mark.parametrize("queue", WORKER_QUEUES)
def test_one_missing_worker_is_named(client, engine, heartbeating, queue):
    get_valkey_sync().delete(worker_key(queue))
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["worker"]["queues"] == {name: name != queue for name in WORKER_QUEUES}


def test_missing_beat_is_not_ready(client, engine, heartbeating):
    get_valkey_sync().delete(heartbeat_key("beat"))
    response = client.get("/readyz")
    assert response.status_code == 503
    assert [part for part, ok in states(response).items() if not ok] == ["beat"]


def test_missing_valkey_takes_worker_and_beat_with_it(client, engine, settings, tmp_path):
    settings.DIALOOP = replace(settings.DIALOOP, redis_url=f"unix://{tmp_path}/nobody.sock?db=0")
    response = client.get("/readyz")
    assert response.status_code == 503
    assert states(response) == {"database": True, "valkey": False, "engine": True, "worker": False, "beat": False}
    assert str(tmp_path) not in response.text


def test_alive_needs_neither_database_nor_valkey(client, settings, tmp_path, django_assert_num_queries):
    settings.DIALOOP = replace(settings.DIALOOP, redis_url=f"unix://{tmp_path}/nobody.sock?db=0")
    with django_assert_num_queries(0):
        response = client.get("/healthz")
    assert (response.status_code, response.content) == (200, b"ok\n")


def test_heartbeat_ends_by_itself():
    assert write_heartbeat(heartbeat_key("beat"))
    assert 0 < get_valkey_sync().ttl(heartbeat_key("beat")) <= TTL_SECONDS


def test_heartbeat_outlives_a_missing_valkey(monkeypatch, tmp_path):
    gone = redis.Redis(unix_socket_path=str(tmp_path / "nobody.sock"))
    monkeypatch.setattr(heartbeats, "get_valkey_sync", lambda: gone)
    assert not write_heartbeat(heartbeat_key("beat"))


@pytest.mark.parametrize("host", ["10.0.0.7:8000", "unknown.example", "[", "a b", ""])
def test_alive_whatever_the_probe_calls_us(client, host):
    response = client.get("/healthz", headers={"Host": host})
    assert (response.status_code, response.content) == (200, b"ok\n")
    assert response["Cache-Control"] == "no-store"
    assert client.get("/", headers={"Host": host}).status_code == 400


async def test_alive_as_the_server_asks(async_client):
    assert (await async_client.get("/healthz", headers={"Host": "unknown.example"})).status_code == 200
