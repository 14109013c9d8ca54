"""Export: a zip made while it is sent, with weights, manifest and card; nothing from outside the model cache."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from dataclasses import replace

import pytest

from chat.errors import InvalidError, NotFoundError
from finetuning.models import Lineage
from finetuning.versions.files import export_version, exported_parts
from models_hub import services
from tests.finetuning.version_support import add_trained, make_trained_model, write_folders

pytestmark = pytest.mark.django_db


@pytest.fixture
def cache(settings, tmp_path):
    settings.DIALOOP = replace(settings.DIALOOP, model_cache_dir=tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def trained(cache):
    version = add_trained(make_trained_model())
    write_folders(version, cache)
    return version


def read_zip(pieces) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(b"".join(pieces)))
    assert archive.testzip() is None
    return archive


def test_the_merged_model_comes_with_manifest_and_card(trained, cache):
    archive = read_zip(export_version(trained))
    names = [f"harbour-helper-2/{name}" for name in ("config.json", "manifest.json", "model.safetensors", "README.md")]
    assert archive.namelist() == names
    original = (cache / trained.source / "model.safetensors").read_bytes()
    assert archive.read("harbour-helper-2/model.safetensors") == original
    assert archive.read("harbour-helper-2/README.md").decode() == trained.lineage.card


def test_the_adapter_comes_alone(trained):
    names = read_zip(export_version(trained, part="adapter")).namelist()
    assert "harbour-helper-2-adapter/adapter.safetensors" in names
    assert not any("model.safetensors" in name for name in names)


def test_a_folder_without_a_manifest_gets_the_stored_one(trained, cache):
    (cache / trained.source / "manifest.json").unlink()
    assert b"model.safetensors" in read_zip(export_version(trained)).read("harbour-helper-2/manifest.json")


def test_a_large_model_is_never_held_in_memory(trained, cache):
    size = 64 * 1024 * 1024
    with (cache / trained.source / "model.safetensors").open("wb") as file:
        file.truncate(size)
    tracemalloc.start()
    sent = sum(len(piece) for piece in export_version(trained))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sent > size
    assert peak < 8 * 1024 * 1024


def test_only_what_is_there_is_offered(trained, cache):
    assert exported_parts(trained) == ["merged", "adapter"]
    # Its folder is the one under its slug, which here holds only those of other versions.
    assert exported_parts(trained.model.versions.get(number=1)) == []
    remote = services.add_version(trained.model, source="owner/of-the-hub")
    assert exported_parts(remote) == []
    for part in ("merged", "adapter"):
        with pytest.raises(NotFoundError):
            export_version(remote, part=part)
    with pytest.raises(InvalidError):
        export_version(trained, part="optimizer")


@pytest.mark.parametrize("source", ["", ".", "..", "../secrets", "/", "harbour-helper/../../secrets"])
def test_nothing_outside_the_model_cache_is_exported(trained, cache, source):
    secrets = cache.parent / "secrets"
    secrets.mkdir()
    (secrets / "key").write_text("secret")
    version = services.add_version(trained.model, source=source)
    Lineage.objects.create(
        version=version,
        dataset_version=trained.lineage.dataset_version,
        base_version=trained,
        method="lora_sft",
        adapter_folder=source,
    )
    for part in ("merged", "adapter"):
        with pytest.raises(NotFoundError):
            export_version(version, part=part)


def test_links_and_hidden_files_stay_behind(trained, cache):
    secret = cache.parent / "secret"
    secret.write_text("secret")
    (cache / trained.source / "link.json").symlink_to(secret)
    (cache / trained.source / ".hidden").write_text("x")
    names = read_zip(export_version(trained)).namelist()
    assert not any(name.endswith(("link.json", ".hidden")) for name in names)
