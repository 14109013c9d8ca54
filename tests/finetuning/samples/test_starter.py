"""`manage.py train_starter`: from a package to a model that answers, once, and again only when it is asked to."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from finetuning.models import Dataset, FineTuningJob
from finetuning.samples import package_index, sources, starter
from models_hub.environment_sync import CLASSIFIER_ENCODER, CLASSIFIER_STARTER
from models_hub.models import ModelVersion
from tests.finetuning.ground import make_model
from tests.finetuning.samples.test_sources import archive

SAID = ("A good film, I loved it", "A bad film, I hated it")


@pytest.fixture
def sentences(settings, child, monkeypatch):
    """The package with the sentences, fetched already; with few enough of them for a test."""
    lines = [f"{row}\t{2 - 4 * (row % 2)}\t{SAID[row % 2]}, number {row}." for row in range(80)]
    root = "vaderSentiment-3.3.2"
    inner = archive(**{"hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": "\n".join(lines)})
    content = archive(
        **{f"{root}/additional_resources/hutto_ICWSM_2014.tar.gz": inner, f"{root}/LICENSE.txt": "The MIT License"}
    )
    sample = sources.get_sample(starter.SAMPLE)
    package = replace(sample.source.package, sha256=hashlib.sha256(content).hexdigest())
    known = replace(sample, source=replace(sample.source, package=package))
    monkeypatch.setattr(sources, "SAMPLES", [known])
    monkeypatch.setattr(
        starter,
        "HYPERPARAMETERS",
        {
            "max_steps": 60,
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 8,
            "eval_steps": 30,
            "precision": "float32",
        },
    )
    kept = settings.DIALOOP.data_dir / "samples" / "packages" / package.file_name
    kept.parent.mkdir(parents=True)
    kept.write_bytes(content)
    return kept


@pytest.fixture
def starter_model(child, transactional_db):
    shutil.copytree(child / "tiny-encoder", child / CLASSIFIER_ENCODER)
    return make_model(CLASSIFIER_STARTER, task="classification", source=CLASSIFIER_ENCODER, is_ready=False)


def train_starter(*arguments: str) -> list[str]:
    out = StringIO()
    call_command("train_starter", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue().splitlines()


def test_starter_goes_from_the_package_to_a_model_that_answers(sentences, starter_model):
    lines = train_starter("--wait")
    assert "80 sentences" in lines[0] and "MIT" in lines[0]
    assert "succeeded distilbert-sentiment@2" in lines
    assert "of 16 held-out sentences right" in lines[-1]
    assert str(starter.find_answering()) == "distilbert-sentiment@2"
    assert train_starter() == ["distilbert-sentiment@2 answers already; --again trains another version."]


def test_trained_again_it_begins_with_the_encoder_and_takes_no_place(sentences, starter_model):
    train_starter("--wait")
    lines = train_starter("--wait", "--again")
    newest = ModelVersion.objects.get(model=starter_model, number=3)
    assert newest.lineage.base_version.source == CLASSIFIER_ENCODER
    assert str(starter.find_answering()) == "distilbert-sentiment@2"
    assert "distilbert-sentiment@2 still answers" in lines[-1] and "promote distilbert-sentiment 3" in lines[-1]
    assert Dataset.objects.count() == 1 and newest.lineage.dataset_version.number == 1


def test_second_click_finds_the_job_of_the_first(sentences, starter_model):
    first, second = train_starter(), train_starter()
    assert first[-1] == second[-1] == f"job {FineTuningJob.objects.get().pk}"


def test_without_a_network_nothing_is_begun(sentences, starter_model, monkeypatch):
    sentences.unlink()
    monkeypatch.setattr(package_index, "default_index", lambda: "http://127.0.0.1:1/simple")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(CommandError, match="could not be fetched"):
        train_starter()
    assert not Dataset.objects.exists() and not FineTuningJob.objects.exists()


def test_without_the_encoder_it_says_what_to_do(sentences, transactional_db):
    with pytest.raises(CommandError, match=r"manage\.py setup"):
        train_starter()
