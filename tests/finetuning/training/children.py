"""The child process as its parent sees it: a folder with a spec, a process with a pipe, and a log of events."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetuning.training.environment import CHILD_ENVIRONMENT
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]
ENDS = {"Succeeded", "Stopped", "Failed"}


def write_rows(file: Path, contents: Sequence[dict[str, Any]]) -> Path:
    """As a dataset version writes them; the ids are told apart from line numbers."""
    rows = [{"id": 1000 + number, "content": content} for number, content in enumerate(contents)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def chats(conversations: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"messages": messages} for messages in conversations]


def write_spec(folder: Path, *, mode: str, method: str, kind: str, base: Path, files: dict, **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    spec = {"mode": mode, "method": method, "kind": kind, "base": str(base), "use_gpu": False}
    spec["files"] = {split: str(path) if path else None for split, path in files.items()}
    (folder / "spec.json").write_text(json.dumps({**spec, **more}, default=str))
    return folder


class Child:
    """One process for a folder. Use as a context: whatever happens, it is gone afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> Child:
        with (self.folder / "log.txt").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "finetuning.training.child", str(self.folder)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **CHILD_ENVIRONMENT, "OMP_NUM_THREADS": "1"},
                process_group=0,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.process.stdin.close()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def wait(self) -> int:
        wait_until(lambda: self.process.poll() is not None, patience=120, what=self.output())
        return self.process.returncode

    def wait_for(self, event: str, *, count: int = 1) -> None:
        wait_until(lambda: len(of(self.folder, event)) >= count, patience=120, what=f"{count} {event}: {self.output()}")

    def output(self) -> str:
        return (self.folder / "log.txt").read_text()[-2000:]


def run_child(folder: Path) -> dict[str, Any]:
    """To its end; the last event."""
    with Child(folder) as child:
        child.wait()
    return read_events(folder)[-1]


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Whole lines only, as a parent reads them."""
    file = folder / "events.jsonl"
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]


def of(folder: Path, event: str) -> list[dict[str, Any]]:
    return [line for line in read_events(folder) if line["event"] == event]


def curve(events: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    """Steps and losses by the parent's rule: what a run does again is forgotten first."""
    points: list[tuple[int, float]] = []
    for event in events:
        if event["event"] == "Started":
            points = [point for point in points if point[0] <= event["resumed_from"]]
        elif event["event"] == "StepDone":
            points.append((event["step"], event["loss"]))
    return points
