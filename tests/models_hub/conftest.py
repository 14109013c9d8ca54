"""Fixtures of the models hub's tests."""

from __future__ import annotations

import pytest

from models_hub import breaker, clients
from models_hub.clients import retries
from tests.support.fixtures import upstream  # noqa: F401


@pytest.fixture(autouse=True)
def _fast_retries(monkeypatch):
    """The waits keep their order and lose their length."""
    monkeypatch.setattr(retries, "FIRST_DELAY", 0.001)


@pytest.fixture(autouse=True)
def _closed_breakers():
    breaker.reset()
    yield
    breaker.reset()


@pytest.fixture
async def closing_clients():
    yield
    await clients.close_clients()
