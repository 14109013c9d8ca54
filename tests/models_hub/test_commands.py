"""`check_models` and `ask`: what they print, and with which status they end."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from models_hub import services
from models_hub.environment_sync import sync_from_environment
from models_hub.models import Connection, RegisteredModel
from tests.support.upstream import answer_text

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def configure(settings, upstream, tmp_path):
    def configure(*models: str, **values) -> None:
        variables = {
            "openai_api_key": "sk-x",
            "openai_base_url": upstream.base_url,
            "openai_models": models,
            "default_model": models[0],
            "engine_url": upstream.url,
            "model_cache_dir": tmp_path,
        }
        settings.DIALOOP = replace(settings.DIALOOP, **variables | values)
        sync_from_environment()

    return configure


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def test_ask_writes_the_answer_of_the_default_model(configure):
    configure("tokens=20")
    assert run("ask", "What is a loop?") == answer_text(20) + "\n"


def test_ask_takes_a_model_and_its_version(configure, upstream):
    configure("first", "tokens=3")
    assert run("ask", "Hi", "--model", "tokens=3@1") == answer_text(3) + "\n"
    assert upstream.chats[0].body["model"] == "tokens=3"


@pytest.mark.parametrize(
    ("model", "sentence"), [("none", "no model"), ("fail=401", "key"), ("tokens=9+end=drop", "broke off")]
)
def test_ask_ends_with_a_sentence_when_it_fails(configure, model, sentence):
    configure("fail=401", "tokens=9+end=drop")
    with pytest.raises(CommandError, match=sentence):
        run("ask", "Hi", "--model", model)


@pytest.mark.parametrize("text", ["", "  ", "x" * 100_001])
def test_ask_checks_the_question_first(configure, upstream, text):
    configure("first")
    with pytest.raises(CommandError, match="characters"):
        run("ask", text)
    assert not upstream.chats


def test_check_models_writes_a_line_for_each_connection_and_model(configure):
    configure("works", "fail=404")
    lines = run("check_models").splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["ok", "connection", "Engine"],
        ["ok", "connection", "OpenAI"],
        ["down", "model", "distilbert-sentiment:"],
        ["down", "model", "smollm2-135m-instruct:"],
        ["down", "model", "fail=404:"],
        ["ok", "model", "works"],
    ]


def test_check_models_fails_when_the_default_is_down(configure):
    configure("fail=404", "works")
    with pytest.raises(CommandError, match="fail=404 is down"):
        run("check_models")


def test_check_models_fails_when_the_default_is_not_there(configure):
    configure("works", default_model="elsewhere")
    with pytest.raises(CommandError, match="elsewhere"):
        run("check_models")


def test_check_models_fails_when_the_fallback_is_down(configure):
    configure("works", "fail=404", fallback_model="fail=404")
    with pytest.raises(CommandError, match="fail=404"):
        run("check_models")


@pytest.mark.parametrize("name", ["default_model", "fallback_model"])
def test_check_models_checks_the_very_version_that_is_named(configure, name):
    """What is in production says nothing of version 2."""
    configure("works", "tokens=3")
    version = services.add_version(RegisteredModel.objects.get(slug="tokens=3"), provider_model="fail=404")
    configure("works", "tokens=3", **{name: str(version)})
    with pytest.raises(CommandError, match="tokens=3@2 is down"):
        run("check_models")
    configure("works", "tokens=3", **{name: "tokens=3@1"})
    assert "ok    model tokens=3@1" in run("check_models")
    configure("works", "tokens=3", **{name: "tokens=3@9"})
    with pytest.raises(CommandError, match="tokens=3@9 is not registered"):
        run("check_models")


def test_check_models_keeps_what_it_found(configure, upstream):
    configure("works")
    upstream.script = "fail=401"
    with pytest.raises(CommandError):
        run("check_models")
    assert set(Connection.objects.values_list("last_error_code", flat=True)) == {"provider_auth"}
