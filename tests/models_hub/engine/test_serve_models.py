"""The engine as the process that runs in use: `manage.py serve_models`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from models_hub.models import PRODUCTION, Alias, Connection, ModelVersion, RegisteredModel
from tests.models_hub.engine.builders import save_scripted_llama
from tests.models_hub.engine.client import PATIENCE

MANAGE = Path(__file__).resolve().parents[3] / "manage.py"
KEY = {"Authorization": "Bearer engine-key-of-the-tests"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def database(transactional_db, settings) -> str:
    """Where another process finds the rows of this test."""
    values = settings.DATABASES["default"]
    if not values["ENGINE"].endswith("sqlite3"):
        pytest.skip("a second process is given the test's database on SQLite only")
    from django.db import connection

    return f"sqlite:///{connection.settings_dict['NAME']}"


@pytest.fixture
def engine(database, tmp_path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = free_port()
    environment = {**os.environ, "DATABASE_URL": database, "ENGINE_URL": f"http://127.0.0.1:{port}"}
    environment |= {"MODEL_CACHE_DIR": str(tmp_path), "DEFAULT_MODEL": "poet"}
    process = subprocess.Popen([sys.executable, str(MANAGE), "serve_models"], env=environment)
    yield process, f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


async def wait_until_healthy(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                async with session.get(f"{url}/health") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.1)


async def test_it_serves_the_database_and_ends_at_once_when_told(engine, tmp_path):
    process, url = engine
    await asyncio.to_thread(save_and_register, tmp_path)
    async with aiohttp.ClientSession(headers=KEY) as session:
        await wait_until_healthy(session, url)
        body = {"model": "poet", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100_000, "stream": True}
        async with session.post(f"{url}/v1/chat/completions", json=body) as response:
            assert response.status == 200, await response.text()
            await response.content.readline()
            process.send_signal(signal.SIGTERM)
            lines = [line async for line in response.content if line.startswith(b"data: ")]
    assert json.loads(lines[-1].removeprefix(b"data: "))["error"]["code"] == "engine_stopping"
    assert await asyncio.to_thread(process.wait, PATIENCE) == 0


def save_and_register(folder: Path) -> None:
    save_scripted_llama(folder / "poet-1", b"abcdefgh", endless=True, max_position_embeddings=50_000)
    connection = Connection.objects.create(name="Engine of the test", kind=Connection.Kind.ENGINE)
    model = RegisteredModel.objects.create(slug="poet", name="Poet", connection=connection)
    version = ModelVersion.objects.create(model=model, number=1, provider_model="poet@1", source="poet-1")
    Alias.objects.create(model=model, name=PRODUCTION, version=version)


async def test_address_that_is_taken_is_one_clear_sentence(database):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environment = {
            **os.environ,
            "DATABASE_URL": database,
            "ENGINE_URL": f"http://127.0.0.1:{taken.getsockname()[1]}",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(MANAGE), "serve_models", env=environment, stderr=asyncio.subprocess.PIPE
        )
        _, stderr = await process.communicate()
    assert process.returncode == 1
    assert b"CommandError: The engine cannot start on http://127.0.0.1" in stderr
    assert b"Traceback" not in stderr
