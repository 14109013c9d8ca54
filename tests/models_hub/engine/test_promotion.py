"""A version registered while the engine runs: asked at once, and the one before makes room for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from finetuning.versions import promote, roll_back
from models_hub import services
from models_hub.engine.engine import Engine
from models_hub.engine.options import EngineOptions
from models_hub.engine.server import Server
from models_hub.engine_catalog import VersionCatalog
from models_hub.models import PRODUCTION, Connection, ModelVersion, RegisteredModel
from tests.models_hub.engine.builders import save_scripted_llama
from tests.models_hub.engine.client import KEY, EngineClient

# Each weighs 13 MB in float32, so that the budget holds one of them.
HEAVY = {"intermediate_size": 2000, "max_position_embeddings": 64}


@pytest.fixture
def model(transactional_db, settings, tmp_path) -> RegisteredModel:
    settings.DIALOOP = replace(settings.DIALOOP, model_cache_dir=tmp_path)
    connection = Connection.objects.create(name="Engine of the test", kind=Connection.Kind.ENGINE)
    model = RegisteredModel.objects.create(slug="poet", name="Poet", connection=connection)
    services.move_alias(model, PRODUCTION, register(model, tmp_path, b"old"), actor=None, reason="First.")
    return model


def register(model: RegisteredModel, cache: Path, text: bytes) -> ModelVersion:
    """As a training does it: the folder, then the row."""
    number = services.take_number(model)
    save_scripted_llama(cache / model.slug / str(number), text, **HEAVY)
    version = services.add_version(model, number=number, source=f"{model.slug}/{number}")
    ModelVersion.objects.filter(pk=version.pk).update(needs_evaluation=True, evaluated_at=timezone.now())
    return version


@pytest.fixture
async def client(model, tmp_path) -> AsyncIterator[EngineClient]:
    catalog = VersionCatalog()
    options = EngineOptions(api_key=KEY, model_cache_dir=tmp_path, max_batch=1, memory_mb=20, dtype="float32")
    engine = Engine(catalog, options=options, list_names=catalog.list_names)
    server = Server(engine)
    client = EngineClient(await server.start("127.0.0.1", 0), engine)
    yield client
    await client.close()
    await server.stop()


async def said(client: EngineClient, name: str) -> str:
    status, answer = await client.chat(name)
    assert status == 200, answer
    return answer["choices"][0]["message"]["content"]


async def loaded(client: EngineClient) -> list[str]:
    return [model["source"] for model in (await client.health())["models"] if model["state"] == "ready"]


async def test_a_version_made_while_the_engine_runs_answers_and_the_old_one_leaves(model, client, tmp_path):
    assert await said(client, "poet") == "old"
    second = await sync_to_async(register)(model, tmp_path, b"new")
    assert await said(client, "poet@2") == "new"
    assert await loaded(client) == ["poet/2"]
    assert await said(client, "poet") == "old", "not promoted yet"

    await sync_to_async(promote)(second, actor=None, reason="Better.")
    assert await said(client, "poet") == "new"
    await sync_to_async(roll_back)(model, actor=None, reason="Worse.")
    assert await said(client, "poet") == "old"

    health = await client.health()
    assert health["evictions"] == 4
    assert health["memory_mb"]["used"] <= 20
