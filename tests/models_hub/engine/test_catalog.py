from __future__ import annotations

from dataclasses import replace

import pytest

from models_hub.engine.errors import ModelNotReadyError
from models_hub.engine.options import ModelSource, Task
from models_hub.engine_catalog import VersionCatalog
from models_hub.models import PRODUCTION, Alias, Connection, ModelVersion, RegisteredModel


@pytest.fixture
def model(transactional_db):
    connection = Connection.objects.create(name="Engine of the test", kind=Connection.Kind.ENGINE)
    return RegisteredModel.objects.create(slug="poet", name="Poet", connection=connection)


def add_version(model: RegisteredModel, number: int, **fields) -> ModelVersion:
    values = {"provider_model": f"{model.slug}@{number}", "source": f"folder-{number}", **fields}
    return ModelVersion.objects.create(model=model, number=number, **values)


def test_version_alias_and_bare_slug_are_found(model):
    first, second = add_version(model, 1), add_version(model, 2, revision="abc")
    Alias.objects.create(model=model, name=PRODUCTION, version=first)
    Alias.objects.create(model=model, name="candidate", version=second)
    catalog = VersionCatalog()
    assert catalog("poet@1") == catalog("poet") == catalog("poet@production") == ModelSource("folder-1")
    assert catalog("poet@2") == catalog("poet@candidate") == ModelSource("folder-2", "abc")


def test_moved_alias_is_seen_at_once(model):
    first, second = add_version(model, 1), add_version(model, 2)
    alias = Alias.objects.create(model=model, name=PRODUCTION, version=first)
    catalog = VersionCatalog()
    assert catalog("poet") == ModelSource("folder-1")
    alias.version = second
    alias.save(update_fields=["version"])
    assert catalog("poet") == ModelSource("folder-2")


def test_new_version_is_found_and_a_known_one_costs_no_query(model, django_assert_num_queries):
    catalog = VersionCatalog()
    assert catalog("poet@1") is None
    add_version(model, 1)
    assert catalog("poet@1") is not None
    with django_assert_num_queries(0):
        catalog("poet@1")


def test_version_without_weights_says_why_and_is_served_once_it_has_them(model):
    version = add_version(model, 1, is_ready=False, not_ready_reason="It needs training.")
    catalog = VersionCatalog()
    with pytest.raises(ModelNotReadyError, match="It needs training"):
        catalog("poet@1")
    assert catalog.list_names() == []
    version.is_ready = True
    version.save(update_fields=["is_ready"])
    assert catalog("poet@1") == ModelSource("folder-1")
    assert catalog.list_names() == ["poet@1"]


def test_task_comes_along(model):
    model.task = RegisteredModel.Task.CLASSIFICATION
    model.save(update_fields=["task"])
    add_version(model, 1)
    assert VersionCatalog()("poet@1").task is Task.CLASSIFICATION


def test_models_of_other_providers_are_not_the_engines(model):
    model.connection = Connection.objects.create(name="OpenAI of the test", kind=Connection.Kind.OPENAI_CHAT)
    model.save(update_fields=["connection"])
    version = add_version(model, 1)
    Alias.objects.create(model=model, name=PRODUCTION, version=version)
    catalog = VersionCatalog()
    assert [catalog(name) for name in ("poet@1", "poet", "nobody", "", "@", "poet@9")] == [None] * 6
    assert catalog.list_names() == []


def test_trained_version_without_its_folder_is_not_looked_for_on_the_hub(model, settings, tmp_path):
    settings.DIALOOP = replace(settings.DIALOOP, model_cache_dir=tmp_path)
    add_version(model, 1, source="poet/1", needs_evaluation=True)
    catalog = VersionCatalog()
    with pytest.raises(ModelNotReadyError, match="not in the model cache"):
        catalog("poet@1")
    (tmp_path / "poet" / "1").mkdir(parents=True)
    assert catalog("poet@1") == ModelSource("poet/1")
