"""A dataset to begin with, and the pauses of bulk writes made short."""

from __future__ import annotations

import shutil

import pytest

from finetuning import datasets
from finetuning.datasets import polite
from finetuning.datasets.folders import dataset_folder
from finetuning.models import Dataset


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polite, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def dataset(db) -> Dataset:
    made = datasets.create_dataset("Rivers", user=None)
    shutil.rmtree(dataset_folder(made.pk), ignore_errors=True)  # of another test's dataset with the same id
    return made
