"""A checkpoint is whole or it is none: a process may be killed at any moment of writing it."""

from __future__ import annotations

import pytest
import torch

from finetuning.training import checkpoints
from finetuning.training.checkpoints import CheckpointStore, LoopState, trained_tensors
from finetuning.training.errors import BrokenCheckpointError, DiskError, ResumeMismatchError
from finetuning.training.optimization import build_optimizer
from tests.finetuning.training.toys import VALUES, toy_model


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path, fingerprint={"data": "a"})


@pytest.fixture
def trained():
    """A model and an optimizer after one update."""
    model = toy_model()
    optimizer = build_optimizer(model, VALUES)
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_weights_optimizer_and_position_come_back(store, trained):
    model, optimizer = trained
    store.save(model, optimizer, LoopState(step=5, tokens=77, best_score=0.5))
    fresh = toy_model(seed=1)
    fresh_optimizer = build_optimizer(fresh, VALUES)
    state = store.restore(fresh, fresh_optimizer)
    assert state == LoopState(step=5, tokens=77, best_score=0.5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))
    for ours, theirs in zip(model.parameters(), fresh.parameters(), strict=True):
        stored, restored = optimizer.state[ours], fresh_optimizer.state[theirs]
        assert stored.keys() == restored.keys()
        assert all(torch.equal(stored[key], restored[key]) for key in stored)


def test_nothing_to_restore_is_no_error(store, trained):
    assert store.restore(*trained) is None


def test_broken_checkpoint_is_passed_over_for_the_one_before(store, trained):
    for step in (1, 2):
        store.save(*trained, LoopState(step=step))
    weights = store.folder / "step-00000002" / "trained.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert store.restore(*trained).step == 1


def test_only_broken_checkpoints_are_an_error(store, trained):
    store.save(*trained, LoopState(step=1))
    (store.folder / "step-00000001" / "manifest.json").write_text("{")
    with pytest.raises(BrokenCheckpointError):
        store.restore(*trained)


def test_half_written_checkpoint_is_not_seen(store, trained, monkeypatch):
    store.save(*trained, LoopState(step=1))

    def killed(_content, _file):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        store.save(*trained, LoopState(step=2))
    assert store.peek().step == 1


def test_what_a_killed_process_left_half_written_is_cleared_away(store, trained):
    store.save(*trained, LoopState(step=1))
    (store.folder / ".step-00000002.4711").mkdir()
    store.restore(*trained)
    assert [folder.name for folder in store.folder.iterdir()] == ["step-00000001"]


def test_full_disk_is_a_clear_error_and_leaves_nothing_behind(store, trained, monkeypatch):
    def full(_content, _file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(DiskError, match="No space left"):
        store.save(*trained, LoopState(step=1))
    assert list(store.folder.iterdir()) == []


def test_only_the_newest_are_kept(store, trained):
    for step in range(1, 6):
        store.save(*trained, LoopState(step=step))
    assert [folder.name for folder in sorted(store.folder.iterdir())] == ["step-00000004", "step-00000005"]


def test_checkpoint_of_another_model_is_refused(store, trained):
    store.save(*trained, LoopState(step=1))
    other = torch.nn.Linear(4, 1)
    with pytest.raises(ResumeMismatchError, match="weights"):
        store.restore(other, build_optimizer(other, VALUES))


def test_what_changed_is_named(store, trained):
    store.save(*trained, LoopState(step=1))
    other = CheckpointStore(store.folder, fingerprint={"data": "b", "base": "c"})
    with pytest.raises(ResumeMismatchError) as caught:
        other.peek()
    assert caught.value.details["changed"] == ["base", "data"]


def test_frozen_weights_are_not_stored(trained):
    model, _ = trained
    model[0].requires_grad_(False)
    assert trained_tensors(model).keys() == {"3.weight", "3.bias"}
