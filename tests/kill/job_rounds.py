"""One round: a job is under way, something is killed, maybe it is cancelled, and everything is looked at afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from tests.kill.ground import wait_until_back
from tests.kill.job_ground import BASE, DATASET, JobProduct
from tests.support.waiting import wait_until

VALIDATING, RUNNING, EVALUATING = "validating", "running", "evaluating"
PHASES = (VALIDATING, RUNNING, EVALUATING)
CHILD, WORKER = "child", "worker"
VICTIMS = (CHILD, WORKER, "beat", "valkey", "web")
NOBODY = "nobody"
STEPS = 600
ENDED = ("succeeded", "failed", "cancelled")
# What is promised, in seconds.
CANCELLED_WITHIN = 10.0
PATIENCE = 600.0
RECIPE = {
    "max_steps": STEPS,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "eval_steps": 200,
    "early_stopping_patience": 0,
    "save_steps": 50,
    "precision": "float32",
}


@dataclass
class Outcome:
    """What came of a round, in seconds after the kill."""

    victim: str
    phase: str
    is_cancelled: bool
    status: str = ""
    seconds: float = 0.0
    attempts: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        what = "cancelled" if self.is_cancelled else "killed"
        return (
            f"{self.victim:<8} {what:<9} while {self.phase:<10} {self.status:<10} {self.seconds:6.1f} s later"
            f"  {self.attempts} runs" + "".join(f"\n    FAULT {fault}" for fault in self.faults)
        )


class JobRound:
    """With `is_cancelled` somebody cancels the job in the moment of the kill; victim "nobody": only that."""

    def __init__(
        self, ground: JobProduct, *, victim: str, phase: str, rng: random.Random, is_cancelled: bool = False
    ) -> None:
        self._ground = ground
        self._victim = victim
        self._phase = phase
        self._rng = rng
        self._outcome = Outcome(victim, phase, is_cancelled)
        self._target = f"words-{uuid4().hex[:8]}"
        self._job_id = ""

    def play(self) -> Outcome:
        self._job_id = self._make_job()
        with Watch(self._ground, self._job_id) as watch:
            self._reach()
            killed_at = time.monotonic()
            back = self._kill()
            if self._outcome.is_cancelled:
                killed_at = self._cancel()
            wait_until(lambda: self._row()["status"] in ENDED, patience=PATIENCE, what=f"the end of {self._row()}")
            self._outcome.seconds = time.monotonic() - killed_at
            back()
        self._outcome.faults += watch.faults
        self._judge()
        self._ground.product.wait_until_ready()
        return self._outcome

    def _make_job(self) -> str:
        new = {
            "method": "lora_sft",
            "base": BASE,
            "dataset": DATASET,
            "target": self._target,
            "hyperparameters": RECIPE,
        }
        answer: dict[str, Any] | None = None

        def is_made() -> bool:
            nonlocal answer
            answer = self._ground.ask("POST", "/jobs", {**new, "request_key": self._target})
            return answer is not None

        wait_until(is_made, patience=PATIENCE, what="the job is made")
        assert answer is not None
        return answer["id"]

    def _row(self) -> dict[str, Any]:
        return self._ground.job(self._job_id)

    def _reach(self) -> None:
        """The phase, and a moment within it."""
        step = self._rng.randint(1, STEPS // 2)

        def is_reached() -> bool:
            row = self._row()
            assert row["status"] not in ENDED, f"it ended before {self._phase}: {row}"
            if self._phase == RUNNING:
                return row["phase"] == "training" and row["step"] >= step
            return row["phase"] == self._phase and bool(self._ground.children(self._job_id))

        wait_until(is_reached, patience=PATIENCE, what=f"{self._phase}: {self._row()}")
        if self._phase != RUNNING:
            time.sleep(self._rng.random() * 2)

    def _kill(self) -> Callable[[], None]:
        """Returns what waits until it is back."""
        if self._victim == NOBODY:
            return lambda: None
        if self._victim == CHILD:
            for pid in self._ground.children(self._job_id):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return lambda: None
        worker = "worker-default" if self._phase == VALIDATING else "worker-training"
        name = worker if self._victim == WORKER else self._victim
        pid = self._ground.product.kill(name)
        return lambda: wait_until_back(self._ground.product, name, pid)

    def _cancel(self) -> float:
        """When it was accepted: while the web process is away nobody can."""
        accepted: dict[str, Any] | None = None

        def is_accepted() -> bool:
            nonlocal accepted
            accepted = self._ground.ask("POST", f"/jobs/{self._job_id}/cancel", {})
            return accepted is not None

        wait_until(is_accepted, patience=PATIENCE, what="the cancellation is accepted")
        return time.monotonic()

    # --- afterwards ---------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        row, outcome = self._row(), self._outcome
        outcome.status = row["status"]
        wanted = "cancelled" if outcome.is_cancelled else "succeeded"
        if row["status"] != wanted:
            outcome.faults.append(f"ended {row['status']}: {row['error_code']} {row['error_message']}")
        if outcome.is_cancelled and outcome.seconds > CANCELLED_WITHIN:
            outcome.faults.append(f"was cancelled only after {outcome.seconds:.1f} s")
        if row["owner_token"] is not None:
            outcome.faults.append("has ended and still has an owner")
        wait_until(lambda: not self._ground.children(self._job_id), patience=30, what="its children have ended")
        self._judge_log()
        self._judge_curve()
        self._judge_version()

    def _judge_log(self) -> None:
        """Each life goes on from a step that was done, a step at a time: two at once would be mixed."""
        last, lives = 0, 0
        for event in read_events(self._ground.folder(self._job_id) / "run" / "events.jsonl"):
            if event["event"] == "Started":
                lives += 1
                if event["resumed_from"] > last:
                    self._outcome.faults.append(f"went on after step {event['resumed_from']}, of {last} done")
                last = event["resumed_from"]
            elif event["event"] == "StepDone":
                if event["step"] != last + 1:
                    self._outcome.faults.append(f"step {event['step']} came after {last}")
                last = event["step"]
        self._outcome.attempts = lives

    def _judge_curve(self) -> None:
        query = "SELECT step FROM finetuning_jobmetric WHERE job_id = ? AND loss IS NOT NULL ORDER BY step"
        steps = [row["step"] for row in self._ground.rows(query, UUID(self._job_id).hex)]
        if steps != list(range(1, len(steps) + 1)):
            self._outcome.faults.append("its curve has a gap or a repeat")
        if self._outcome.status == "succeeded" and len(steps) != STEPS:
            self._outcome.faults.append(f"its curve has {len(steps)} of {STEPS} steps")

    def _judge_version(self) -> None:
        """One, whole and evaluated; of a cancelled job none, or a whole one that waits for its evaluation."""
        query = (
            "SELECT version.* FROM models_hub_modelversion version JOIN models_hub_registeredmodel model"
            " ON model.id = version.model_id WHERE model.slug = ?"
        )
        versions = self._ground.rows(query, self._target)
        if len(versions) > 1 or (self._outcome.status == "succeeded" and len(versions) != 1):
            self._outcome.faults.append(f"gave {len(versions)} versions")
        for version in versions:
            folder = self._ground.product.settings.model_cache_dir / version["source"]
            missing = [name for name in json.loads(version["manifest"]) if not (folder / name).is_file()]
            if missing or not (folder / "model.safetensors").is_file():
                self._outcome.faults.append(f"{version['source']} lacks {missing or 'its weights'}")
            if (version["evaluated_at"] is None) == (self._outcome.status == "succeeded"):
                self._outcome.faults.append("is evaluated, or not, against the job's status")
        registered = self._ground.rows("SELECT * FROM models_hub_registeredmodel WHERE slug = ?", self._target)
        if len(registered) != len(versions):
            self._outcome.faults.append("left a model without a version")


class Watch:
    """Looks all the time whether two processes work for the job."""

    def __init__(self, ground: JobProduct, job_id: str) -> None:
        self._ground = ground
        self._job_id = job_id
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.faults: list[str] = []

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        before: set[int] = set()
        while not self._ended.wait(0.3):
            now = self._ground.children(self._job_id)
            # One that is just ending, beside one that just begins, is seen once only.
            if len(now & before) > 1:
                self.faults.append(f"the processes {sorted(now & before)} worked at once")
            before = now


def read_events(log: Path) -> list[dict[str, Any]]:
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
