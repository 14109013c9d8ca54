"""Daphne as we run it: what is too large is refused unread, and the end waits for the last words."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from config.web_server import MAX_BODY_BYTES
from tests.support.waiting import wait_until

BASE_DIR = Path(__file__).resolve().parents[2]
SERVER = """
import asyncio, json, sys
from config.web_server import WebServer

pieces = []

async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await stopping.wait()
        await send({"type": "websocket.send", "text": "last words"})
        said.set()
        return
    if scope["path"] == "/long":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(200):
            pieces.append(1)
            await send({"type": "http.response.body", "body": bytes(1024 * 1024), "more_body": True})
        return await send({"type": "http.response.body", "body": b"end"})
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message["body"]), message["more_body"]
    body = json.dumps({"size": size, "pieces": len(pieces)}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})

async def start():
    global stopping, said
    stopping, said = asyncio.Event(), asyncio.Event()
    print("started", flush=True)

async def stop():
    stopping.set()
    if sys.argv[2] == "talking":
        await said.wait()
    print("stopped", flush=True)

WebServer(application, host="127.0.0.1", port=int(sys.argv[1]), on_start=start, on_stop=stop).run()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_server(port: int, mode: str = "quiet") -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port), mode],
        cwd=BASE_DIR,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def connect(port: int) -> socket.socket:
    opened: list[socket.socket] = []

    def try_to_connect() -> bool:
        try:
            opened.append(socket.create_connection(("127.0.0.1", port), timeout=20))
        except ConnectionRefusedError:
            return False
        return True

    wait_until(try_to_connect)
    return opened[0]


def read_all(connection: socket.socket) -> tuple[bytes, bytes]:
    """The head and the body of an answer that ends with its connection."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


@pytest.fixture
def server() -> Iterator[int]:
    port = free_port()
    process = start_server(port)
    yield port
    process.terminate()
    process.communicate(timeout=20)


def post(port: int, *headers: str, body: bytes = b"") -> tuple[bytes, bytes]:
    lines = ["POST / HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
    with closing(connect(port)) as connection:
        connection.sendall("\r\n".join(lines).encode() + body)
        return read_all(connection)


def test_large_body_is_refused_before_it_is_sent(server):
    head, body = post(server, f"Content-Length: {MAX_BODY_BYTES + 1}")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert json.loads(body)["code"] == "too_long"


def test_sender_that_asks_first_is_not_told_to_go_on(server):
    head, _ = post(server, f"Content-Length: {MAX_BODY_BYTES + 1}", "Expect: 100-continue")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"100" not in head.splitlines()[0]


def test_sender_that_does_not_listen_still_gets_the_answer(server):
    size = 4 * MAX_BODY_BYTES
    head, _ = post(server, f"Content-Length: {size}", body=b"x" * size)
    assert head.startswith(b"HTTP/1.1 413 ")


def test_large_body_without_a_length_is_refused(server):
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    head, _ = post(server, "Transfer-Encoding: chunked", body=chunk * 6 + b"0\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")


def test_body_at_the_limit_arrives_whole(server):
    head, body = post(server, f"Content-Length: {MAX_BODY_BYTES}", body=b"x" * MAX_BODY_BYTES)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(body)["size"] == MAX_BODY_BYTES


def test_server_does_not_say_what_it_is(server):
    head, _ = post(server, "Content-Length: 0")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"server:" not in head.lower()


def test_stopping_lets_open_sockets_hear_the_last_words():
    port = free_port()
    process = start_server(port, "talking")
    with closing(connect(port)) as connection:
        connection.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(4096)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"server:" not in head.lower()
        process.send_signal(signal.SIGTERM)
        frames, _ = read_all(connection)
    assert b"last words" in frames
    output, _ = process.communicate(timeout=20)
    assert output.split() == ["started", "stopped"]
    assert process.returncode == 0


def test_taken_port_is_an_error():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        process = start_server(holder.getsockname()[1])
        _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "cannot listen on" in errors


LONG_REQUEST = b"GET /long HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def pieces_made(port: int) -> int:
    return json.loads(post(port, "Content-Length: 0")[1])["pieces"]


def test_long_answer_waits_for_a_slow_reader(server):
    """Of 200 MiB no more is made than fits into the network's own buffers."""
    with closing(connect(server)) as reader:
        reader.sendall(LONG_REQUEST)
        size, tail = 0, reader.recv(4096)
        assert tail.startswith(b"HTTP/1.1 200 ")
        assert 0 < pieces_made(server) < 50
        while piece := reader.recv(1024 * 1024):
            size, tail = size + len(piece), (tail + piece)[-100:]
    assert tail.endswith(b"end\r\n0\r\n\r\n")
    assert size > 199 * 1024 * 1024
    assert pieces_made(server) == 200


def test_reader_who_leaves_keeps_no_answer_waiting(server):
    with closing(connect(server)) as reader:
        reader.sendall(LONG_REQUEST)
        reader.recv(4096)
    wait_until(lambda: pieces_made(server) == 200)
