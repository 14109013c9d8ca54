"""Settings from the environment: defaults that work, and a wrong value that is one sentence naming its variable."""

import multiprocessing
import os
import runpy
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from config.environment import Environment, create_secrets

BASE_DIR = Path(__file__).resolve().parents[2]

WRONG_VALUES = [
    ("PORT", "http"),
    ("PORT", "0"),
    ("PORT", "65536"),
    ("DEBUG", "perhaps"),
    ("PUBLIC_URL", "chat.example.org"),
    ("PUBLIC_URL", "https://"),
    ("PUBLIC_URL", "https://example.org/chat"),
    ("EMAIL_URL", "pigeon://coop"),
    ("DATABASE_URL", "mysql://localhost/dialoop"),
    ("DATABASE_URL", "postgres://user:pass@localhost:many/dialoop"),
    ("REDIS_URL", "http://localhost:6379"),
    ("REDIS_URL", "redis://localhost:many"),
    ("OPENAI_API_KEY", "sk-schlüssel"),
    ("HUGGINGFACE_API_TOKEN", "hf two words"),
    ("ENCRYPTION_KEYS", "short"),
    ("ENCRYPTION_KEYS", ""),
    ("ENGINE_API_KEY", " "),
    ("DATA_DIR", "/dev/null"),
    ("OPENAI_BASE_URL", "api.openai.com"),
    ("CONTEXT_MESSAGES", "-1"),
    ("MAX_MESSAGE_CHARS", "0"),
    ("MAX_NEW_TOKENS", "many"),
    ("TEMPERATURE", "2.1"),
    ("TEMPERATURE", "nan"),
    ("REQUEST_TIMEOUT", "0"),
    ("MAX_RETRIES", "1.5"),
    ("MESSAGES_PER_MINUTE", "-5"),
    ("USE_GPU", "maybe"),
    ("ENGINE_URL", "127.0.0.1:8010"),
    ("ENGINE_URL", "http://localhost:0"),
    ("ENGINE_URL", "http://"),
    ("ENGINE_MEMORY_MB", "1"),
    ("ENGINE_MAX_BATCH", "0"),
    ("TRAINING_WORKERS", "0"),
    ("SIGNUP", "anyone"),
    ("LOG_LEVEL", "loud"),
    ("LOG_FORMAT", "xml"),
]


def load_settings() -> dict:
    """The settings as a process that starts now would see them."""
    return runpy.run_path(str(BASE_DIR / "config" / "settings.py"))


@pytest.mark.parametrize(("name", "value"), WRONG_VALUES)
def test_wrong_value_is_one_sentence_naming_the_variable(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured) as raised:
        load_settings()
    sentence = str(raised.value)
    assert sentence.startswith(name)
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_wrong_value_stops_a_command_without_a_traceback():
    result = subprocess.run(
        [sys.executable, "manage.py", "setup"],
        cwd=BASE_DIR,
        env={**os.environ, "PORT": "front door"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == "dialoop: PORT must be a whole number, not 'front door'.\n"


def test_password_in_a_wrong_url_is_not_shown(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "http://user:hunter2@localhost")
    with pytest.raises(ImproperlyConfigured) as raised:
        load_settings()
    assert "hunter2" not in str(raised.value)


def test_value_that_begins_with_a_dollar_is_a_value(monkeypatch):
    """django-environ alone would look for a variable of that name, find none, and go on without a password."""
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "$ecret-of-the-house")
    assert load_settings()["DIALOOP"].superuser_password == "$ecret-of-the-house"


def test_blank_value_is_as_good_as_none(monkeypatch):
    names = ("HOST", "ENGINE_URL", "DEFAULT_MODEL", "OPENAI_MODELS", "ALLOWED_HOSTS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    before = load_settings()
    for name in names:
        monkeypatch.setenv(name, " ")
    after = load_settings()
    assert (after["DIALOOP"], after["ALLOWED_HOSTS"]) == (before["DIALOOP"], before["ALLOWED_HOSTS"])


def test_database_behind_a_unix_socket_needs_no_host(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgres:///dialoop")
    assert load_settings()["DATABASES"]["default"]["NAME"] == "dialoop"


def test_example_file_changes_nothing(tmp_path, monkeypatch):
    """Whoever copies `.env.example` to `.env` gets what he had without it."""
    example = {}
    for line in (BASE_DIR / ".env.example").read_text().splitlines():
        name, found, value = line.partition("=")
        if found and name.isupper() and not line.startswith("#"):
            example[name] = value
    for name in example:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "var"))
    before = load_settings()
    for name in set(example) - {"DATA_DIR"}:
        monkeypatch.setenv(name, example[name])
    after = load_settings()
    for name in ("DIALOOP", "DATABASES", "ALLOWED_HOSTS", "EMAIL_BACKEND", "EMAIL_HOST", "DEBUG", "CACHES"):
        assert after[name] == before[name]
    assert after["LOGGING"]["root"] == before["LOGGING"]["root"]


def test_environment_wins_over_file(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("DIALOOP_TEST_A=file\nDIALOOP_TEST_B=file\n")
    monkeypatch.setenv("DIALOOP_TEST_A", "environment")
    env = Environment(tmp_path / ".env")
    monkeypatch.setenv("DIALOOP_TEST_B", os.environ["DIALOOP_TEST_B"])  # taken away again after the test
    assert (env.text("DIALOOP_TEST_A"), env.text("DIALOOP_TEST_B")) == ("environment", "file")


def test_public_url_is_allowed_and_trusted(monkeypatch):
    monkeypatch.setenv("PUBLIC_URL", "https://chat.example.org/")
    found = load_settings()
    assert "chat.example.org" in found["ALLOWED_HOSTS"]
    assert found["CSRF_TRUSTED_ORIGINS"] == ["https://chat.example.org"]
    assert found["SESSION_COOKIE_SECURE"] and found["CSRF_COOKIE_SECURE"]


def test_embedded_valkey_has_a_short_private_socket(tmp_path, monkeypatch):
    deep = tmp_path / ("folder" * 20)
    monkeypatch.setenv("DATA_DIR", str(deep))
    monkeypatch.setenv("REDIS_URL", "")
    found = load_settings()
    path = found["REDIS_URL"].removeprefix("unix://").partition("?")[0]
    assert len(path.encode()) <= 107
    assert found["CELERY_BROKER_URL"].startswith(f"redis+socket://{path}")


def test_two_data_dirs_have_two_sockets(tmp_path, monkeypatch):
    monkeypatch.setenv("REDIS_URL", "")
    urls = []
    for name in ("one", "two"):
        monkeypatch.setenv("DATA_DIR", str(tmp_path / name))
        urls.append(load_settings()["REDIS_URL"])
    assert urls[0] != urls[1]


def _create_at_the_same_time(barrier, folder: str, results) -> None:
    barrier.wait()
    results.put(create_secrets(Path(folder)).read_text())


def test_racing_processes_agree_on_the_secrets(tmp_path):
    context = multiprocessing.get_context("fork")
    racers, results = 8, context.Queue()
    barrier = context.Barrier(racers)
    folder = tmp_path / "var"
    processes = [
        context.Process(target=_create_at_the_same_time, args=(barrier, str(folder), results)) for _ in range(racers)
    ]
    for process in processes:
        process.start()
    texts = {results.get(timeout=30) for _ in processes}
    for process in processes:
        process.join(timeout=30)
    assert len(texts) == 1
    assert [file.name for file in folder.iterdir()] == ["secrets.env"]


def test_secrets_are_for_the_owner_only_and_stay(tmp_path):
    file = create_secrets(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert create_secrets(tmp_path).read_text() == text
    assert all(f"{name}=" in text for name in ("SECRET_KEY", "ENCRYPTION_KEYS", "ENGINE_API_KEY"))


@pytest.mark.parametrize(("value", "temperature", "is_set"), [("", 0.7, False), ("0.7", 0.7, True), ("1.1", 1.1, True)])
def test_temperature_that_somebody_set_is_told_apart_from_the_default(monkeypatch, value, temperature, is_set):
    monkeypatch.setenv("TEMPERATURE", value)
    read = load_settings()["DIALOOP"]
    assert (read.temperature, read.temperature_is_set) == (temperature, is_set)
