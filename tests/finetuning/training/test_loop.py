"""The loop resumes to the last bit, stops when asked, keeps the best weights, and explains what goes wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from finetuning.training.checkpoints import CheckpointStore
from finetuning.training.errors import DivergedError, ResumeMismatchError, TrainingMemoryError
from finetuning.training.events import EvaluationDone, Started, StepDone, WarmUpDone
from finetuning.training.optimization import learning_rate_at
from tests.finetuning.training.toys import VALUES, Recorder, ToyObjective, run_toy, stop_at, toy_model


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "run", fingerprint={"data": "a"})


@pytest.fixture
def other_store(tmp_path):
    return CheckpointStore(tmp_path / "other", fingerprint={"data": "a"})


def weights(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


# Asked twice a step and once an evaluation: between steps, within a step, and at an evaluation.
@pytest.mark.parametrize("call", [2, 3, 6, 7, 14, 15, 29])
def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(store, other_store, call):
    whole, parts = Recorder(), Recorder()
    run_toy(model := toy_model(), ToyObjective(model), store, progress=whole)

    first = toy_model()
    stopped = run_toy(first, ToyObjective(first), other_store, progress=parts, should_stop=stop_at(call))
    assert stopped.status == "stopped"
    torch.manual_seed(99)  # another process would not have this one's random state
    second = toy_model()
    resumed = run_toy(second, ToyObjective(second), other_store, progress=parts)

    assert resumed.status == "completed"
    assert torch.equal(weights(model), weights(second))
    assert parts.losses == whole.losses


def test_curve_of_a_resumed_run_has_no_gap_and_no_repeat(store):
    parts = Recorder()
    first = toy_model()
    stopped = run_toy(first, ToyObjective(first), store, progress=parts, should_stop=stop_at(8))
    second = toy_model()
    run_toy(second, ToyObjective(second), store, progress=parts)
    steps = [event.step for event in parts.of(StepDone)]
    assert steps == list(range(1, parts.of(StepDone)[0].total_steps + 1))
    assert parts.of(Started)[1].resumed_from == stopped.step > 0


def test_one_batch_of_four_trains_like_four_of_one(store, other_store):
    models = []
    for size, steps, where in ((4, 1, store), (1, 4, other_store)):
        model = toy_model(dropout=0)
        values = replace(VALUES, per_device_train_batch_size=size, gradient_accumulation_steps=steps)
        run_toy(model, ToyObjective(model), where, values=values)
        models.append(weights(model))
    assert torch.allclose(*models, atol=1e-5)


def test_training_lowers_the_held_out_loss(store):
    model = toy_model(dropout=0)
    values = replace(VALUES, num_train_epochs=30)
    result = run_toy(model, ToyObjective(model), store, values=values)
    assert result.evaluations[0]["step"] == 0
    assert result.evaluations[-1]["eval_loss"] < result.evaluations[0]["eval_loss"] / 2


def test_best_weights_are_kept_not_the_last(store):
    model = toy_model()
    seen = {}
    scores = [0.0, 5.0, 3.0, 4.0]  # the base's own score is no candidate
    objective = ToyObjective(model, scores=scores)
    result = run_toy(model, objective, store, on_evaluation=lambda step: seen.update({step: weights(model)}))
    assert result.best_step == sorted(seen)[2]
    assert torch.equal(weights(model), seen[result.best_step])


def test_run_that_no_longer_improves_stops_early(store):
    model = toy_model()
    scores = [9.0, 1.0, *[2.0] * 40]
    values = replace(VALUES, num_train_epochs=40, early_stopping_patience=2)
    result = run_toy(model, ToyObjective(model, scores=scores), store, values=values)
    assert (result.status, len(result.evaluations)) == ("early_stopped", 4)
    assert result.step < result.total_steps


def test_longest_batch_comes_first_and_gives_an_estimate(store):
    model, recorder = toy_model(), Recorder()
    objective = ToyObjective(model)
    run_toy(model, objective, store, progress=recorder)
    (measured,) = recorder.of(WarmUpDone)
    assert [objective.lengths[row] for row in objective.seen[0]] == [7, 7]
    assert measured.longest_row == 7 and measured.estimated_seconds > 0 and measured.peak_memory_bytes > 0


def test_warm_up_changes_no_weight(store):
    model = toy_model()
    before = weights(model)
    run_toy(model, ToyObjective(model), store, should_stop=stop_at(1))
    assert torch.equal(before, weights(model))


def test_run_asked_to_stop_says_so_and_leaves_a_checkpoint(store):
    model = toy_model()
    result = run_toy(model, ToyObjective(model), store, should_stop=stop_at(7))
    assert result.status == "stopped" and 0 < result.step < result.total_steps
    assert store.peek().step == result.step


def test_step_that_is_asked_to_stop_halfway_does_not_count(store):
    model, recorder = toy_model(), Recorder()
    objective = ToyObjective(model, rows=24)  # two batches in every step
    result = run_toy(model, objective, store, progress=recorder, should_stop=stop_at(5))
    assert len(objective.seen) == 1 + 3  # the longest batch, and one and a half steps
    assert result.step == len(recorder.of(StepDone)) == 1


def test_run_with_other_data_does_not_resume(store, tmp_path):
    model = toy_model()
    run_toy(model, ToyObjective(model), store, should_stop=stop_at(8))
    other = CheckpointStore(store.folder, fingerprint={"data": "b"})
    with pytest.raises(ResumeMismatchError, match="data"):
        run_toy(model, ToyObjective(model), other)


def test_loss_that_is_no_number_ends_the_run_before_it_spoils_a_weight(store):
    model = toy_model()
    before = weights(model)
    objective = ToyObjective(model)
    objective._x[:] = float("nan")
    with pytest.raises(DivergedError, match="learning_rate"):
        run_toy(model, objective, store)
    assert torch.equal(before, weights(model))


def out_of_cuda_memory():
    raise torch.OutOfMemoryError("CUDA out of memory.")


def out_of_cpu_memory():
    torch.empty(10**15)


@pytest.mark.parametrize("exhaust", [out_of_cuda_memory, out_of_cpu_memory])
def test_out_of_memory_says_what_to_change(store, exhaust):
    model = toy_model()
    with pytest.raises(TrainingMemoryError) as caught:
        run_toy(model, ToyObjective(model, before_loss=exhaust), store)
    halved = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "per_device_eval_batch_size": 4}
    assert caught.value.details["suggestion"] == halved
    assert "per_device_train_batch_size 1" in caught.value.message


@pytest.mark.parametrize("where", ["prepare", "evaluate"])
def test_out_of_memory_without_gradients_halves_the_batch_of_evaluations_alone(store, monkeypatch, where):
    model = toy_model()
    monkeypatch.setattr(ToyObjective, where, lambda *_: out_of_cuda_memory())
    with pytest.raises(TrainingMemoryError, match="of an evaluation") as caught:
        run_toy(model, ToyObjective(model), store)
    assert caught.value.details["suggestion"] == {"per_device_eval_batch_size": 4}


def test_step_begins_with_all_of_its_batches(store, monkeypatch):
    model, begun = toy_model(), []
    monkeypatch.setattr(
        ToyObjective, "begin_step", lambda self, batches, check: begun.append((list(batches), self.seen[:]))
    )
    objective = ToyObjective(model, rows=24)
    run_toy(model, objective, store, values=replace(VALUES, max_steps=2))
    assert [len(batches) for batches, _ in begun] == [1, 2, 2]  # the longest batch, and two steps
    for batches, seen_before in begun:
        start = len(seen_before)
        assert objective.seen[start : start + len(batches)] == batches


def test_other_errors_are_not_called_out_of_memory(store):
    def break_down():
        raise RuntimeError("shapes do not match")

    model = toy_model()
    with pytest.raises(RuntimeError, match="shapes"):
        run_toy(model, ToyObjective(model, before_loss=break_down), store)


def test_evaluations_come_when_asked_for(store):
    model, recorder = toy_model(), Recorder()
    run_toy(model, ToyObjective(model), store, values=replace(VALUES, max_steps=10, eval_steps=4), progress=recorder)
    assert [event.step for event in recorder.of(EvaluationDone)] == [0, 4, 8, 10]


def test_learning_rate_warms_up_and_falls_to_nothing():
    values = replace(VALUES, learning_rate=1.0, warmup_steps=0.1, lr_scheduler_type="cosine")
    rates = [learning_rate_at(step, total_steps=100, hyperparameters=values) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3]) and max(rates) == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] < 0.01
    linear = replace(values, lr_scheduler_type="linear")
    assert learning_rate_at(55, total_steps=100, hyperparameters=linear) == pytest.approx(0.5)
