"""What a training's process is given."""

from __future__ import annotations

from finetuning.jobs import process


def test_a_training_inherits_no_secret(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("DATABASE_URL", "postgres://user:secret@server/name")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    given = process.child_environment()
    assert not process.SECRETS & given.keys()
    assert given["CUDA_VISIBLE_DEVICES"] == "1"
    assert given["OMP_WAIT_POLICY"] == "passive"
