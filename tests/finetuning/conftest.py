"""Ground for jobs: a model cache with tiny real models, their rows, and datasets that can be learnt from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from finetuning.jobs import shutdown
from finetuning.models import DatasetVersion
from models_hub.models import RegisteredModel
from tests.finetuning.ground import make_dataset, make_model


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and "child" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="session")
def built_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: a Llama of 20,000 parameters and a DistilBERT without a head."""
    from tests.finetuning.training.builders import build_encoder, save_base

    cache = tmp_path_factory.mktemp("models")
    save_base(cache / "tiny-chat")
    build_encoder(cache / "tiny-encoder")
    return cache


@pytest.fixture
def child(built_models: Path, tmp_path: Path, settings: pytest.FixtureRequest) -> Iterator[Path]:
    """The real child process can run: its model cache and data folder are this test's own."""
    cache = tmp_path / "model_cache"
    shutil.copytree(built_models, cache)
    settings.DIALOOP = replace(settings.DIALOOP, model_cache_dir=cache, data_dir=tmp_path / "var", use_gpu="false")
    yield cache
    shutdown.withdraw()


@pytest.fixture
def base(child: Path, transactional_db: None) -> RegisteredModel:
    return make_model("tiny-chat")


@pytest.fixture
def encoder(child: Path, transactional_db: None) -> RegisteredModel:
    """As the starter's classifier is before its first training: an encoder without a head."""
    return make_model(
        "tiny-sentiment", task="classification", source="tiny-encoder", is_ready=False, not_ready_reason="It waits."
    )


@pytest.fixture
def conversations(child: Path, transactional_db: None) -> DatasetVersion:
    return make_dataset("Code words", kind="chat")


@pytest.fixture
def labelled_texts(child: Path, transactional_db: None) -> DatasetVersion:
    return make_dataset("Films", kind="classification")
