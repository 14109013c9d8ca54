"""Fixtures any test may import: `upstream`, a scripted provider of its own, and `real_engine`, one for the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.engine import EngineProcess, start_engine
from tests.support.upstream import Upstream


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream().start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def real_engine() -> Iterator[EngineProcess]:
    """A real engine with the starter model. Tests that ask for it are marked `engine`."""
    from config.app_settings import get_settings

    settings = get_settings()
    engine = start_engine(settings.model_cache_dir, settings.engine_api_key)
    yield engine
    engine.stop()
