"""Two trainings that end together never share a number, a folder or each other's weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from finetuning.jobs.folders import job_folder
from finetuning.jobs.states import Lease
from finetuning.models import FineTuningJob, Lineage
from finetuning.versions import registration
from models_hub.models import ModelVersion, RegisteredModel
from tests.finetuning.job_rows import make_job


@pytest.fixture
def cache(settings, tmp_path) -> Path:
    settings.DIALOOP = replace(settings.DIALOOP, model_cache_dir=tmp_path / "models", data_dir=tmp_path / "var")
    return tmp_path / "models"


def end_training(user, name: str) -> tuple[FineTuningJob, dict]:
    """A running job for the same new model, and its result."""
    job = make_job(user, status="running", target="words")
    FineTuningJob.objects.filter(pk=job.pk).update(owner_token=uuid4())
    job = FineTuningJob.objects.select_related("dataset_version__dataset", "base_version__model__connection").get(
        pk=job.pk
    )
    folder = job_folder(job.pk) / "run" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "manifest.json").write_text(json.dumps({"files": {"model.safetensors": name}}))
    return job, {"folders": {"model": str(folder)}}


def weights_of(version: ModelVersion, cache: Path) -> str:
    return json.loads((cache / version.source / "manifest.json").read_text())["files"]["model.safetensors"]


def test_two_that_planned_the_same_number_get_two(alice, cache):
    first, second = end_training(alice, "first"), end_training(alice, "second")
    for job, result in (first, second):
        file = job_folder(job.pk) / registration.RECORD
        registration.write_json(file, registration._plan(job, result))
    job, result = first
    registration._move_files(job, result)  # and before its rows are written, the other one comes
    versions = {}
    for name, (job, result) in (("second", second), ("first", first)):
        versions[name] = registration.register(job, result, Lease(job.pk, job.owner_token))
    assert {version.number for version in versions.values()} == {1, 2}
    assert {name: weights_of(version, cache) for name, version in versions.items()} == {
        "first": "first",
        "second": "second",
    }
    assert versions["first"].manifest == {"model.safetensors": "first"}
    assert RegisteredModel.objects.filter(slug="words").count() == 1


def test_card_and_lineage_name_what_the_run_did(alice, cache):
    """The job was read before the run, and what was left to the data stands in the pre-flight report."""
    job, result = end_training(alice, "first")
    job.preflight = {"hyperparameters": {"max_length": 56, "learning_rate": 1e-4}}
    FineTuningJob.objects.filter(pk=job.pk).update(step=3, device="cpu", precision="bfloat16")
    result["hyperparameters"] = {"max_length": None, "learning_rate": 2e-4}
    lineage = Lineage.objects.get(version=registration.register(job, result, Lease(job.pk, job.owner_token)))
    assert "- 3 steps on cpu, bfloat16\n" in lineage.card
    assert lineage.hyperparameters == {"max_length": 56, "learning_rate": 2e-4}
