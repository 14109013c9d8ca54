"""The process that trains can be killed, stopped and started again, and its log says in the end what became of it."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from finetuning.training import child as child_module
from finetuning.training.event_log import EventLog
from finetuning.training.events import Phase
from tests.finetuning.training.builders import code_words, conversation, save_base
from tests.finetuning.training.children import (
    Child,
    chats,
    curve,
    of,
    read_events,
    run_child,
    write_rows,
    write_spec,
)

VALUES = {
    "learning_rate": 0.02,
    "max_steps": 60,
    "eval_steps": 20,
    "save_steps": 4,
    "lora_dropout": 0.2,
    "per_device_train_batch_size": 2,
    "precision": "float32",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A base, and rows to train on."""
    folder = tmp_path_factory.mktemp("data")
    save_base(folder / "base")
    write_rows(folder / "train.jsonl", chats(code_words(24)))
    write_rows(folder / "validation.jsonl", chats(code_words(40)[24:30]))
    return folder


def make_run(data: Path, folder: Path, **changes) -> Path:
    files = {"train": data / "train.jsonl", "validation": data / "validation.jsonl", "test": None}
    spec = {"mode": "train", "method": "lora_sft", "kind": "chat", "base": data / "base", "files": files}
    return write_spec(folder, **{**spec, "hyperparameters": VALUES, **changes})


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    folder = make_run(data, tmp_path_factory.mktemp("whole") / "run", sample_prompts=["hi 1"])
    assert run_child(folder)["event"] == "Succeeded"
    return folder


def test_run_ends_with_folders_metrics_and_its_origin(whole):
    events = read_events(whole)
    result = events[-1]["result"]
    assert {name: Path(path).is_dir() for name, path in result["folders"].items()} == {"model": True, "adapter": True}
    assert result["metrics"]["after"]["eval_loss"] < result["metrics"]["before"]["eval_loss"]
    assert result["steps"] == 60 and result["tokens"] > 0 and result["seconds"] > 0 and not result["stopped_early"]
    assert len(result["template_hash"]) == len(result["base_fingerprint"]) == 64
    assert result["packages"].keys() >= {"torch", "transformers", "peft"}
    assert all("at" in event for event in events)
    assert of(whole, "SamplesWritten")[0]["answers"][0]["prompt"] == "hi 1"


def test_killed_at_random_steps_and_started_again_it_ends_in_the_same_losses(data, whole, tmp_path):
    folder = make_run(data, tmp_path / "run", sample_prompts=["hi 1"])
    source = random.Random(5)
    for kills in range(3):
        with Child(folder) as child:
            child.wait_for("StepDone", count=len(of(folder, "StepDone")) + source.randrange(3, 12))
            child.kill()
        # What a process killed in the middle of a line leaves behind.
        with (folder / "events.jsonl").open("ab") as log:
            log.write(b'{"event": "StepDone", "step": 9' if kills == 1 else b"")
    assert run_child(folder)["event"] == "Succeeded"
    assert len(of(folder, "Started")) == 4 and of(folder, "Started")[-1]["resumed_from"] > 0
    assert [step for step, _ in curve(read_events(folder))] == list(range(1, 61))
    assert curve(read_events(folder)) == curve(read_events(whole))
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (folder, whole))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_checkpoint_never_covers_a_step_that_the_log_does_not_have(whole):
    done = 0
    for event in read_events(whole):
        if event["event"] == "StepDone":
            done = event["step"]
        elif event["event"] == "CheckpointSaved":
            assert event["step"] == done


@pytest.mark.parametrize("how", ["end of input", "word", "signal"])
def test_asked_to_stop_it_writes_a_checkpoint_and_goes_on_later(data, whole, tmp_path, how):
    folder = make_run(data, tmp_path / "run", sample_prompts=["hi 1"])
    with Child(folder) as child:
        child.wait_for("StepDone", count=5)
        assert os.getpriority(os.PRIO_PROCESS, child.process.pid) >= 10
        if how == "end of input":
            child.process.stdin.close()
        elif how == "word":
            child.process.stdin.write(b"stop\n")
            child.process.stdin.flush()
        else:
            child.process.send_signal(signal.SIGTERM)
        assert child.wait() == 0
    assert read_events(folder)[-1]["event"] == "Stopped"
    reached = of(folder, "StepDone")[-1]["step"]
    assert of(folder, "CheckpointSaved")[-1]["step"] == reached < 60
    assert run_child(folder)["event"] == "Succeeded"
    assert of(folder, "Started")[-1]["resumed_from"] == reached
    assert curve(read_events(folder)) == curve(read_events(whole))


def test_run_that_had_succeeded_is_not_done_again(whole):
    before = read_events(whole)
    again = run_child(whole)
    assert again["result"] == before[-1]["result"]
    assert len(of(whole, "StepDone")) == 60


def test_only_one_process_works_for_a_job(data, tmp_path, monkeypatch):
    """The second waits for a while, and says so in the end."""
    folder = make_run(data, tmp_path / "job" / "run")
    monkeypatch.setattr(child_module.os, "nice", lambda _: 0)
    monkeypatch.setattr(child_module.StopSwitch, "listen", lambda _, **__: None)
    with (tmp_path / "job" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert child_module.main(folder, lock_patience=0.2) == 1
    (event,) = read_events(folder)
    assert (event["event"], event["code"]) == ("Failed", "still_running")


def test_one_that_waits_can_be_stopped(data, tmp_path):
    folder = make_run(data, tmp_path / "job" / "run")
    with (tmp_path / "job" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with Child(folder) as child:
            child.process.stdin.close()
            assert child.wait() == 0
    assert [event["event"] for event in read_events(folder)] == ["Stopped"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"base": "nowhere"}, "base_model"),
        ({"method": "alchemy"}, "spec"),
        ({"method": "dpo"}, "spec"),
        ({"files": {"validation": None}}, "spec"),
        ({"files": {"train": "missing.jsonl"}}, "data"),
        ({"hyperparameters": {"learning_rat": 1}}, "hyperparameters"),
        ({"hyperparameters": {"learning_rate": -1}}, "hyperparameters"),
        ({"hyperparameters": {"learning_rate": "fast"}}, "hyperparameters"),
        ({"hyperparameters": {**VALUES, "learning_rate": 1e9}}, "diverged"),
        ({"use_gpu": True}, "device"),
        ({"adapter": "nowhere"}, "base_model"),
    ],
)
def test_failure_has_a_code_and_a_sentence(data, tmp_path, run_here, changes, code):
    folder = make_run(data, tmp_path / "run", **changes)
    assert run_here(folder) == 1
    last = read_events(folder)[-1]
    assert (last["event"], last["code"]) == ("Failed", code)
    assert " " in last["message"]


@pytest.fixture
def run_here(monkeypatch):
    """The child's own function in this process, where starting one costs seconds."""
    monkeypatch.setattr(child_module.os, "nice", lambda _: 0)
    monkeypatch.setattr(child_module.StopSwitch, "listen", lambda _, **__: None)
    return child_module.main


def test_broken_line_of_the_data_is_named(data, tmp_path, run_here):
    lines = (data / "train.jsonl").read_text().splitlines()
    broken = tmp_path / "broken.jsonl"
    broken.write_text("\n".join([*lines[:6], lines[6][:20], *lines[7:]]))
    folder = make_run(data, tmp_path / "run", files={"train": broken})
    run_here(folder)
    assert "line 7" in read_events(folder)[-1]["message"]


def test_full_disk_is_called_so(data, tmp_path, run_here, monkeypatch):
    def full(*_arguments, **_named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("finetuning.training.checkpoints.save_file", full)
    folder = make_run(data, tmp_path / "run")
    run_here(folder)
    last = read_events(folder)[-1]
    assert last["code"] == "disk" and "No space left" in last["message"]


def test_out_of_memory_carries_what_to_change(data, tmp_path, run_here, monkeypatch):
    def exhaust(*_arguments):
        raise MemoryError

    monkeypatch.setattr("finetuning.training.sft.SftObjective.loss", exhaust)
    folder = make_run(data, tmp_path / "run")
    run_here(folder)
    last = read_events(folder)[-1]
    assert last["code"] == "out_of_memory"
    halved = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "per_device_eval_batch_size": 4}
    assert last["details"]["suggestion"] == halved


def test_error_nobody_thought_of_is_in_the_log_too(data, tmp_path, run_here, monkeypatch):
    def break_down(*_arguments):
        raise ZeroDivisionError("never thought of")

    monkeypatch.setattr("finetuning.training.sft.SftObjective.loss", break_down)
    folder = make_run(data, tmp_path / "run")
    assert run_here(folder) == 1
    last = read_events(folder)[-1]
    assert last["code"] == "unexpected" and "never thought of" in last["details"]["traceback"]


def test_run_with_other_data_does_not_go_on(data, tmp_path, run_here):
    folder = make_run(data, tmp_path / "run", hyperparameters={**VALUES, "max_steps": 4})
    assert run_here(folder) == 0
    shutil.rmtree(folder / "model")  # nothing to give back, so it would go on
    write_rows(tmp_path / "other.jsonl", chats([conversation("a", "b")] * 12))
    make_run(data, folder, hyperparameters={**VALUES, "max_steps": 4}, files={"train": tmp_path / "other.jsonl"})
    run_here(folder)
    last = read_events(folder)[-1]
    assert last["code"] == "resume_mismatch" and last["details"]["changed"] == ["data"]


METHODS = {
    "full_sft": ("chat", chats(code_words(12))),
    "dpo": (
        "preference",
        [
            {
                "prompt": [{"role": "user", "content": f"code {p}"}],
                "chosen": [{"role": "assistant", "content": "blue"}],
                "rejected": [{"role": "assistant", "content": "red"}],
            }
            for p in range(12)
        ],
    ),
    "kto": (
        "kto",
        [
            {
                "prompt": [{"role": "user", "content": f"code {p}"}],
                "completion": [{"role": "assistant", "content": "blue" if p % 2 else "red"}],
                "label": bool(p % 2),
            }
            for p in range(12)
        ],
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_causal_method_reads_its_rows(data, tmp_path, run_here, method):
    kind, contents = METHODS[method]
    files = {"train": write_rows(tmp_path / "rows.jsonl", contents)}
    values = {"max_steps": 2, "precision": "float32"}
    folder = make_run(data, tmp_path / "run", method=method, kind=kind, files=files, hyperparameters=values)
    assert run_here(folder) == 0
    assert Path(read_events(folder)[-1]["result"]["folders"]["model"], "model.safetensors").is_file()


def test_event_is_what_every_database_can_hold(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log(Phase(name="a\x00b"))
    log(Phase(name=float("inf")))  # type: ignore[arg-type]
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["a\ufffdb", None]


@pytest.mark.parametrize("rest", [b"", b'{"event": "Sta', b"x" * 200_000])
def test_half_a_line_is_taken_away_and_whole_ones_stay(tmp_path, rest):
    log = EventLog(tmp_path / "events.jsonl")
    log(Phase(name="loading"))
    whole = (tmp_path / "events.jsonl").read_bytes()
    (tmp_path / "events.jsonl").write_bytes(whole + rest)
    log.repair()
    assert (tmp_path / "events.jsonl").read_bytes() == whole
    assert log.last()["name"] == "loading"


def test_log_without_a_whole_line_becomes_empty(tmp_path):
    (tmp_path / "events.jsonl").write_bytes(b'{"event"')
    log = EventLog(tmp_path / "events.jsonl")
    log.repair()
    assert (tmp_path / "events.jsonl").read_bytes() == b"" and log.last() is None
