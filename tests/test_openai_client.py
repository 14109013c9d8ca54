"""The OpenAI client. Under pytest against the scripted provider; run directly, against what `.env` configures."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()

import pytest

from models_hub import clients, services
from models_hub.base import FinishReason, ProviderAuthenticationError
from models_hub.environment_sync import sync_from_environment
from models_hub.models import Connection
from models_hub.targets import CHAT, OPENAI_CHAT
from tests.models_hub.support import OPTIONS, QUESTION, read
from tests.support.fixtures import upstream  # noqa: F401
from tests.support.upstream import answer_text

HOW_TO = "set OPENAI_API_KEY (or OPENAI_BASE_URL) in .env, then run `python manage.py setup`."


@pytest.fixture
def target(transactional_db, settings, upstream, tmp_path):  # noqa: F811
    """The model as a person configures it: by variables, through the set-up, out of the database."""
    variables = {"openai_api_key": "sk-test", "openai_base_url": upstream.base_url, "openai_models": ("tokens=20",)}
    settings.DIALOOP = replace(settings.DIALOOP, model_cache_dir=tmp_path, **variables)
    sync_from_environment()
    return services.get_model_config("tokens=20")


async def close(answer):
    try:
        return await answer
    finally:
        await clients.close_clients()


async def test_a_configured_model_answers(target):
    answer = await close(read(clients.open_reply_source(target).stream(QUESTION, options=OPTIONS)))
    assert answer.text == answer_text(20)
    assert answer.finished.finish_reason == FinishReason.STOP
    assert answer.finished.usage.completion_tokens == 20


async def test_check_tells_a_wrong_key(target, upstream):  # noqa: F811
    await close(clients.open_for_check(target).check())
    upstream.script = "fail=401"
    with pytest.raises(ProviderAuthenticationError):
        await close(clients.open_for_check(target).check())


async def test_what_the_provider_refuses_is_remembered_in_the_database(target, upstream):  # noqa: F811
    upstream.script = "refuses=max_tokens"
    await close(read(clients.open_reply_source(target).stream(QUESTION, options=OPTIONS)))
    connection = await Connection.objects.aget(pk=target.connection_id)
    assert connection.learned_parameters == {"tokens=20": {"refused": ["max_tokens"]}}


if __name__ == "__main__":
    from tests.support.client_script import run

    sys.exit(run(OPENAI_CHAT, [CHAT], question="What is a loop? Answer in one sentence.", how_to_configure=HOW_TO))
