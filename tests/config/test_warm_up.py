"""The web process before the crowd comes."""

from __future__ import annotations

import gc
import sys

import pytest

from config.warm_up import warm_up
from models_hub import clients
from models_hub.clients.transport import get_client, get_tls_settings
from tests.models_hub.support import make_target


@pytest.fixture
def unfrozen():
    yield
    gc.unfreeze()


async def test_what_the_first_question_needs_is_there_and_stays(unfrozen):
    before = gc.get_freeze_count()
    await warm_up()
    assert {"openai", "httpcore2"} <= set(sys.modules)
    assert get_tls_settings.cache_info().currsize == 1
    assert gc.get_freeze_count() > before + 10_000


async def test_certificates_are_read_once_for_all_connections():
    clients.preload()
    reads = get_tls_settings.cache_info().misses
    for _ in range(3):
        get_client(make_target())
    assert get_tls_settings.cache_info().misses == reads
    await clients.close_clients()
