"""Fixtures of the models hub's tests."""

from __future__ import annotations

import pytest

from models_hub import clients
from tests.support.fixtures import closed_breakers, fast_retries, upstream  # noqa: F401


@pytest.fixture
async def closing_clients():
    yield
    await clients.close_clients()
