"""A real engine over real HTTP on a port of its own, the tiny models it serves, and the starter models."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from models_hub.starter import StarterImportError, StarterModel, import_starter_models
from tests.models_hub.engine.client import KEY, EngineClient

Serve = Callable[..., Awaitable[EngineClient]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="session")
def starter_models() -> dict[str, StarterModel]:
    """The starter models by folder, imported once into a folder that all test runs on this machine share."""
    default = Path(tempfile.gettempdir()) / f"dialoop-test-models-{os.getuid()}"
    folder = Path(os.environ.get("DIALOOP_TEST_MODELS") or default)
    try:
        return {model.folder: model for model in import_starter_models(folder)}
    except StarterImportError as error:
        pytest.skip(f"the starter models' wheels: {error}")


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`await serve({"name": source or folder, ...}, **options)` starts an engine and gives a client of it."""
    from models_hub.engine.engine import Engine
    from models_hub.engine.options import EngineOptions, ModelSource
    from models_hub.engine.server import Server

    started: list[tuple[Server, EngineClient]] = []

    async def start(models: dict[str, Any], **options: Any) -> EngineClient:
        catalog = {name: m if isinstance(m, ModelSource) else ModelSource(str(m)) for name, m in models.items()}
        defaults = {"model_cache_dir": Path("/nonexistent"), "max_batch": 4, "memory_mb": 512, "dtype": "float32"}
        values = EngineOptions(api_key=KEY, **{**defaults, **options})
        engine = Engine(catalog.get, options=values, list_names=catalog.keys)
        server = Server(engine)
        port = await server.start("127.0.0.1", 0)
        client = EngineClient(port, engine)
        started.append((server, client))
        return client

    yield start
    for server, client in started:
        await client.close()
        await server.stop()
