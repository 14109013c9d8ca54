"""Fixtures for a conftest.py to import: a scripted provider, the real engine, retries and breakers for tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models_hub import breaker
from models_hub.clients import retries
from tests.support.engine import EngineProcess, start_engine
from tests.support.upstream import Upstream


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream().start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between attempts keep their order and lose their length."""
    monkeypatch.setattr(retries, "FIRST_DELAY", 0.001)


@pytest.fixture(autouse=True)
def closed_breakers() -> Iterator[None]:
    breaker.reset()
    yield
    breaker.reset()


@pytest.fixture(scope="session")
def real_engine() -> Iterator[EngineProcess]:
    """A real engine with the starter model. Tests that ask for it are marked `engine`."""
    from config.app_settings import get_settings

    settings = get_settings()
    engine = start_engine(settings.model_cache_dir, settings.engine_api_key)
    yield engine
    engine.stop()
