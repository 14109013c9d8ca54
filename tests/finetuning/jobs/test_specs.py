"""What a job's child is told."""

from __future__ import annotations

from dataclasses import replace

from finetuning.jobs import specs
from tests.finetuning.job_rows import make_job


def test_a_training_is_told_how_many_processes_it_has(alice, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(specs, "base_folder", lambda version: tmp_path / version.source)
    job = make_job(alice)
    assert specs.make_spec(job, "train")["processes"] == 1
    settings.DIALOOP = replace(settings.DIALOOP, training_processes=4)
    assert specs.make_spec(job, "train")["processes"] == 4


def test_splits_without_rows_have_no_file(alice, tmp_path, monkeypatch):
    monkeypatch.setattr(specs, "base_folder", lambda version: tmp_path / version.source)
    spec = specs.make_spec(make_job(alice), "train")
    assert set(spec["files"]) == {"train", "validation"}
