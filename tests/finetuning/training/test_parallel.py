"""Two processes started by `accelerate launch` train as one does that accumulates twice as long."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetuning.training.parallel import Processes, current
from tests.finetuning.training.builders import code_words, save_base
from tests.finetuning.training.children import Child, chats, curve, of, read_events, run_child, write_rows, write_spec

VALUES = {"learning_rate": 0.001, "max_steps": 8, "eval_steps": 4, "save_steps": 2, "precision": "float32"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    save_base(folder / "base")
    write_rows(folder / "train.jsonl", chats(code_words(21)))  # the last step has fewer batches than processes
    write_rows(folder / "validation.jsonl", chats(code_words(4)))
    return folder


def make_run(data: Path, folder: Path, *, processes: int, accumulation: int, **values) -> Path:
    return write_spec(
        folder / "run",
        mode="train",
        method="lora_sft",
        kind="chat",
        base=data / "base",
        files={"train": data / "train.jsonl", "validation": data / "validation.jsonl"},
        hyperparameters={**VALUES, "gradient_accumulation_steps": accumulation, **values},
        processes=processes,
    )


@pytest.fixture(scope="module")
def two(data, tmp_path_factory) -> Path:
    folder = make_run(data, tmp_path_factory.mktemp("two"), processes=2, accumulation=1)
    assert run_child(folder)["event"] == "Succeeded", (folder / "log.txt").read_text()
    return folder


def test_two_processes_have_the_losses_of_one_with_twice_the_accumulation(data, two, tmp_path):
    one = make_run(data, tmp_path, processes=1, accumulation=2)
    run_child(one)
    ours, theirs = (curve(read_events(folder)) for folder in (two, one))
    assert [step for step, _ in ours] == [step for step, _ in theirs] == list(range(1, 9))
    assert [loss for _, loss in ours] == pytest.approx([loss for _, loss in theirs], rel=1e-3)
    assert len({round(loss, 3) for _, loss in ours}) > 4
    held_out = [[event["metrics"]["eval_loss"] for event in of(folder, "EvaluationDone")] for folder in (two, one)]
    assert held_out[0] == pytest.approx(held_out[1], rel=1e-3)


def test_distance_of_a_kto_step_is_that_of_all_processes(data, tmp_path):
    """Each has two batches of one row: alone it would cut off another distance at 0."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"code {number}"}],
            "completion": [{"role": "assistant", "content": "blue" if number % 2 else "red"}],
            "label": bool(number % 2),
        }
        for number in range(10)
    ]
    curves = []
    for processes, accumulation in ((2, 2), (1, 4)):
        values = {**VALUES, "learning_rate": 0.01, "gradient_accumulation_steps": accumulation}
        folder = write_spec(
            tmp_path / str(processes) / "run",
            mode="train",
            method="kto",
            kind="kto",
            base=data / "base",
            files={"train": write_rows(tmp_path / "rated.jsonl", rows)},
            hyperparameters={**values, "per_device_train_batch_size": 1},
            processes=processes,
        )
        assert run_child(folder)["event"] == "Succeeded", (folder / "log.txt").read_text()
        curves.append([loss for _, loss in curve(read_events(folder))])
    assert curves[0] == pytest.approx(curves[1], rel=1e-3) and len({round(loss, 3) for loss in curves[0]}) > 4


def test_only_the_first_process_writes(two):
    names = [event["event"] for event in read_events(two)]
    assert names.count("Started") == names.count("Succeeded") == 1 and names.count("StepDone") == 8
    assert (two / "model" / "model.safetensors").is_file()


def test_both_stop_at_the_parents_word_and_go_on_later(data, two, tmp_path):
    folder = make_run(data, tmp_path, processes=2, accumulation=1)
    with Child(folder) as child:
        child.wait_for("StepDone", count=2)
        child.process.stdin.write(b"stop\n")
        child.process.stdin.flush()
        assert child.wait() == 0
    assert read_events(folder)[-1]["event"] == "Stopped"
    assert run_child(folder)["event"] == "Succeeded"
    assert of(folder, "Started")[-1]["resumed_from"] >= 2
    assert [loss for _, loss in curve(read_events(folder))] == pytest.approx(
        [loss for _, loss in curve(read_events(two))], rel=1e-3
    )


def test_failure_of_any_process_is_told(data, tmp_path):
    folder = make_run(data, tmp_path, processes=2, accumulation=1, learning_rate=1e9)
    last = run_child(folder)
    assert (last["event"], last["code"]) == ("Failed", "diverged")


def test_batches_are_shared_so_that_all_have_the_same_number():
    shares = [Processes(rank, 3).share([1, 2, 3, 4]) for rank in range(3)]
    assert shares == [[1, 4], [2, None], [3, None]]


def test_single_process_does_nothing_together():
    alone = current()
    assert (alone, alone.is_main) == (Processes(0, 1), True)
    assert (alone.sum(2.5, device="cpu"), alone.any(False, device="cpu"), alone.agree("x")) == (2.5, False, "x")
