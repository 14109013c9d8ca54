"""Where things are killed: the whole product, a scripted provider beside it, and somebody who has signed in."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp

from tests.support.product import BASE_DIR, Product, free_port
from tests.support.waiting import wait_until

NAME, PASSWORD = "watcher", "correct horse battery staple"
MODEL = "scripted"


@contextmanager
def running_product(folder: Path) -> Iterator[Product]:
    """All processes, ready, with the scripted provider as one of the models; everything ended in the end."""
    port = free_port()
    command = [sys.executable, "-m", "tests.support.upstream", "--port", str(port)]
    provider = subprocess.Popen(command, cwd=BASE_DIR, stdout=subprocess.DEVNULL)
    product = Product(
        folder,
        OPENAI_BASE_URL=f"http://127.0.0.1:{port}/v1",
        OPENAI_API_KEY="sk-scripted",
        OPENAI_MODELS=MODEL,
        MESSAGES_PER_MINUTE="0",
        SIGNUP="approval",
    )
    try:
        product.set_up()
        product.manage("create_user", NAME, "--email", f"{NAME}@example.org", "--password", PASSWORD)
        product.start()
        product.wait_until_ready()
        yield product
    finally:
        product.stop()
        provider.terminate()
        provider.wait(timeout=10)


@asynccontextmanager
async def signed_in(address: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A session with the cookie of somebody who signed in by the form."""
    jar = aiohttp.CookieJar(unsafe=True)  # the host is an address
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=timeout) as session:
        async with session.get(f"{address}/accounts/login/") as response:
            found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', await response.text())
        assert found, "the sign-in page has no token"
        form = {"login": NAME, "password": PASSWORD, "csrfmiddlewaretoken": found[1]}
        headers = {"Referer": f"{address}/accounts/login/"}
        async with session.post(f"{address}/accounts/login/", data=form, headers=headers) as response:
            assert response.ok
        # What the page asks when nothing else is picked; the installation's own default stays the engine's.
        headers |= {"X-CSRFToken": cookie_of(session, "csrftoken")}
        async with session.patch(f"{address}/api/me", json={"default_model": MODEL}, headers=headers) as response:
            assert response.ok
        yield session


def cookie_of(session: aiohttp.ClientSession, name: str) -> str:
    [value] = [cookie.value for cookie in session.cookie_jar if cookie.key == name]
    return value


def kept_reply(product: Product, message_id: str) -> dict[str, Any]:
    """The row itself, past everything that could be wrong with the server."""
    path = product.settings.data_dir / "dialoop.sqlite3"
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    try:
        connection.row_factory = sqlite3.Row
        columns = "status, content, html, last_sequence_number"
        query = f"SELECT {columns} FROM chat_message WHERE id = ?"  # noqa: S608 - fixed columns
        return dict(connection.execute(query, [UUID(message_id).hex]).fetchone())
    finally:
        connection.close()


def wait_until_back(product: Product, name: str, old: int) -> None:
    """Until supervisord runs it under another pid; the web process also answers again."""
    wait_until(lambda: product.pids().get(name, old) != old, patience=60, what=f"{name} started again")
    if name == "web":
        wait_until(lambda: answers(product), patience=60, what=f"{product.address} answers")


def answers(product: Product) -> bool:
    try:
        with urllib.request.urlopen(f"{product.address}/healthz", timeout=5) as response:  # noqa: S310 - our own address
            return response.status == 200
    except OSError:
        return False
