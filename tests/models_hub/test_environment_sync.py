"""What `manage.py setup` makes of the environment: repeatable, immutable versions, nothing deleted."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from models_hub import provider_keys, services
from models_hub.environment_sync import WAITS_FOR_HEAD, sync_from_environment
from models_hub.models import PRODUCTION, AliasEvent, Connection, ModelVersion, RegisteredModel

CHAT_STARTER, CLASSIFIER_STARTER = "smollm2-135m-instruct", "distilbert-sentiment"
pytestmark = pytest.mark.django_db


@pytest.fixture
def configure(settings, tmp_path):
    def configure(**values):
        settings.DIALOOP = replace(settings.DIALOOP, **{"model_cache_dir": tmp_path / "cache"} | values)

    configure()
    return configure


@pytest.fixture
def make_folder(configure, tmp_path):
    def make(name: str, **config):
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


def snapshot() -> list:
    tables = (Connection, RegisteredModel, ModelVersion, AliasEvent)
    return [list(table.objects.order_by("pk").values()) for table in tables]


def test_the_starter_models_are_there(make_folder):
    make_folder(f"cache/{CHAT_STARTER}", max_position_embeddings=8192)
    sync_from_environment()
    chat = ModelVersion.objects.get(model__slug=CHAT_STARTER)
    assert (chat.number, chat.provider_model, chat.source) == (1, f"{CHAT_STARTER}@1", CHAT_STARTER)
    assert (chat.is_ready, chat.context_window, chat.model.connection.kind) == (True, 8192, "engine")
    classifier = ModelVersion.objects.get(model__slug=CLASSIFIER_STARTER)
    assert (classifier.is_ready, classifier.not_ready_reason) == (False, WAITS_FOR_HEAD)
    assert {alias.name for alias in classifier.aliases.all()} == {PRODUCTION}


def test_a_second_time_changes_nothing(configure):
    configure(openai_api_key="sk-x", openai_models=("gpt-4o-mini", "other/model"))
    sync_from_environment()
    before = snapshot()
    assert sync_from_environment().lines == []
    assert snapshot() == before


def test_a_starter_imported_later_becomes_ready_as_the_same_version(configure, make_folder):
    sync_from_environment()
    assert not ModelVersion.objects.get(model__slug=CHAT_STARTER).is_ready
    make_folder(f"cache/{CHAT_STARTER}", max_position_embeddings=8192)
    sync_from_environment()
    version = ModelVersion.objects.get(model__slug=CHAT_STARTER)
    assert (version.number, version.is_ready, version.context_window) == (1, True, 8192)


def test_without_key_and_address_there_is_no_openai(configure):
    sync_from_environment()
    assert not Connection.objects.filter(kind="openai_chat").exists()


@pytest.mark.parametrize(
    ("name", "window"),
    [("gpt-4o-mini", 128_000), ("gpt-4.1-mini-2025", 1_047_576), ("gpt-4-0613", 8_192), ("llama3", None)],
)
def test_known_context_windows(configure, name, window):
    configure(openai_api_key="sk-x", openai_models=(name,))
    sync_from_environment()
    assert ModelVersion.objects.get(model__slug=name).context_window == window


def test_the_key_is_read_live_and_not_stored(configure):
    configure(openai_api_key="sk-first", openai_models=("gpt-4o-mini",))
    sync_from_environment()
    connection = Connection.objects.get(kind="openai_chat")
    assert connection.encrypted_api_key == ""
    configure(openai_api_key="sk-second")
    assert provider_keys.get_api_key(connection) == "sk-second"


def test_what_the_environment_drops_is_disabled_and_comes_back(configure):
    configure(openai_api_key="sk-x", openai_models=("a", "b"))
    sync_from_environment()
    configure(openai_models=("a",))
    sync_from_environment()
    assert not RegisteredModel.objects.get(slug="b").is_enabled
    configure(openai_api_key="", openai_base_url="")
    sync_from_environment()
    assert not Connection.objects.get(kind="openai_chat").is_enabled
    configure(openai_api_key="sk-x", openai_models=("a", "b"))
    sync_from_environment()
    assert RegisteredModel.objects.get(slug="b").is_enabled
    assert Connection.objects.get(kind="openai_chat").is_enabled
    assert ModelVersion.objects.filter(model__slug="b").count() == 1


def test_a_changed_value_makes_a_new_version_and_keeps_the_old_one(configure, make_folder):
    folder = make_folder("mine", max_position_embeddings=100)
    configure(huggingface_models=(str(folder),))
    sync_from_environment()
    make_folder("mine", max_position_embeddings=200)
    sync_from_environment()
    old, new = ModelVersion.objects.filter(model__slug="mine").order_by("number")
    assert (old.context_window, new.context_window) == (100, 200)
    assert (old.provider_model, new.provider_model) == ("mine@1", "mine@2")
    assert new.model.aliases.get().version == new
    assert AliasEvent.objects.filter(model__slug="mine").count() == 2


def test_what_somebody_promoted_stays_promoted(configure, make_folder, admin_user):
    folder = make_folder("mine", max_position_embeddings=100)
    configure(huggingface_models=(str(folder),))
    sync_from_environment()
    model = RegisteredModel.objects.get(slug="mine")
    tuned = services.add_version(model, source="tuned")
    services.move_alias(model, PRODUCTION, tuned, actor=admin_user, reason="Better.")
    make_folder("mine", max_position_embeddings=200)
    sync_from_environment()
    assert model.aliases.get().version == tuned
    assert model.versions.count() == 3


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("LlamaForCausalLM", "chat"),
        ("GPT2LMHeadModel", "chat"),
        ("DistilBertForSequenceClassification", "classification"),
        ("DistilBertForMaskedLM", "fill_mask"),
        ("Unheard", "chat"),
    ],
)
def test_a_folders_task_is_read_from_its_config(configure, make_folder, architecture, task):
    make_folder("cache/My.Model_v2", architectures=[architecture], max_position_embeddings=512)
    configure(huggingface_models=("My.Model_v2",))
    sync_from_environment()
    version = ModelVersion.objects.get(model__slug="my-model_v2")
    assert (version.model.task, version.source, version.context_window) == (task, "My.Model_v2", 512)


def test_a_hub_id_may_name_a_revision(configure):
    configure(huggingface_models=("org/Name@abc123", "other/name"))
    sync_from_environment()
    first, second = (ModelVersion.objects.get(model__slug=slug) for slug in ("name", "other-name"))
    assert (first.source, first.revision) == ("org/Name", "abc123")
    assert (second.source, second.revision) == ("other/name", "")


def test_an_admins_own_rows_are_left_alone(configure):
    mine = services.create_connection("OpenAI", kind="openai_chat", base_url="http://mine.example", api_key="k")
    model = RegisteredModel.objects.create(slug="gpt-4o-mini", name="Mine", connection=mine)
    configure(openai_api_key="sk-x", openai_models=("gpt-4o-mini",))
    report = sync_from_environment()
    model.refresh_from_db()
    mine.refresh_from_db()
    assert (model.connection, model.name, mine.base_url) == (mine, "Mine", "http://mine.example")
    assert any("left alone" in line for line in report.lines)
    assert Connection.objects.get(from_environment=True, kind="openai_chat").name == "OpenAI (environment)"


def starter_options() -> dict:
    return RegisteredModel.objects.get(slug=CHAT_STARTER).default_options


def test_a_temperature_that_the_operator_sets_counts_for_the_starter_too(configure):
    sync_from_environment()
    assert starter_options() == {"temperature": 0.2, "top_p": 0.9}
    configure(temperature=1.1, temperature_is_set=True)
    assert sync_from_environment().lines == [f"Model {CHAT_STARTER} starts from {{'top_p': 0.9}}."]
    assert starter_options() == {"top_p": 0.9}
    configure(temperature=0.7, temperature_is_set=False)
    sync_from_environment()
    assert starter_options() == {"temperature": 0.2, "top_p": 0.9}


def test_options_that_an_admin_entered_stay(configure):
    sync_from_environment()
    RegisteredModel.objects.filter(slug=CHAT_STARTER).update(default_options={"temperature": 0.4})
    configure(temperature=1.1, temperature_is_set=True)
    sync_from_environment()
    assert starter_options() == {"temperature": 0.4}
