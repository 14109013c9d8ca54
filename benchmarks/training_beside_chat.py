"""First tokens in chat while a training runs beside it: the engine as it is, the child as a worker starts it.

Part of `python -m benchmarks.training`. The aim: at most twice the time without a training.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from benchmarks.conversations import conversation
from benchmarks.engine import KEY, MODEL, OverHttp, prompt
from finetuning.training.environment import CHILD_ENVIRONMENT

ROOT = Path(__file__).resolve().parent.parent
AIM = 2.0
ROWS = 400
ANSWER_TOKENS = 24
PATIENCE = 300.0


async def measure(folder: Path, *, questions: int) -> bool:
    """Without, beside, and without again: what changes meanwhile on this machine shows in the difference."""
    engine = OverHttp(folder, "bfloat16")
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}, timeout=timeout) as session:
        await engine.wait_until_ready(session)
        await ask_all(engine, session, 2)
        before = await ask_all(engine, session, questions)
        with tempfile.TemporaryDirectory() as place, training(folder, Path(place)) as events:
            await wait_for_step(events, 2)
            first_step = steps_done(events)
            started = time.monotonic()
            beside = await ask_all(engine, session, 2 * questions)
            pace = (steps_done(events) - first_step) / (time.monotonic() - started)
        after = await ask_all(engine, session, questions)
    engine.stop()
    return report([*before, *after], beside, pace)


def report(alone: list[float], beside: list[float], pace: float) -> bool:
    print(
        f"\nfirst token in chat, {len(alone)} questions alone and {len(beside)} beside a training ({pace:.2f} steps/s)"
    )
    for name, times in (("alone", alone), ("beside", beside)):
        worst = statistics.quantiles(times, n=20)[-1]
        print(f"{name:<8} {statistics.median(times) * 1000:>6.0f} ms (median) {worst * 1000:>6.0f} ms (95 %)")
    ratio = statistics.median(beside) / statistics.median(alone)
    print(f"beside / alone: {ratio:.2f}, aim at most {AIM}")
    return ratio <= AIM


async def ask_all(engine: OverHttp, session: aiohttp.ClientSession, questions: int) -> list[float]:
    """One after the other with a pause between, as one person asks. Seconds until the first text of each."""
    source = random.Random(questions)
    times = []
    for number in range(questions):
        await asyncio.sleep(source.uniform(0.1, 0.6))
        times.append(await first_token(engine, session, prompt(number)))
    return times


async def first_token(engine: OverHttp, session: aiohttp.ClientSession, text: str) -> float:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": ANSWER_TOKENS,
        "stream": True,
    }
    started, seconds = time.perf_counter(), 0.0
    async with session.post(f"http://127.0.0.1:{engine.port}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if not seconds and line.startswith(b"data: {"):
                chunk = json.loads(line[6:])
                if any(choice["delta"].get("content") for choice in chunk["choices"]):
                    seconds = time.perf_counter() - started
    return seconds


@contextmanager
def training(base: Path, place: Path) -> Iterator[Path]:
    """A child at work; its events' file. When this ends, so does the child, by the end of its input."""
    rows = place / "train.jsonl"
    with rows.open("w") as file:
        for number in range(ROWS):
            file.write(json.dumps({"id": number, "content": {"messages": conversation(number)}}) + "\n")
    folder = place / "job" / "run"
    folder.mkdir(parents=True)
    spec = {
        "mode": "train",
        "method": "lora_sft",
        "kind": "chat",
        "base": str(base),
        "files": {"train": str(rows)},
        "hyperparameters": {"max_length": 128, "gradient_accumulation_steps": 1},
        "use_gpu": False,
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    child = subprocess.Popen(
        [sys.executable, "-m", "finetuning.training.child", str(folder)],
        cwd=ROOT,
        env={**os.environ, **CHILD_ENVIRONMENT},
        stdin=subprocess.PIPE,
        process_group=0,
    )
    try:
        yield folder / "events.jsonl"
    finally:
        child.stdin.close()
        child.wait(timeout=PATIENCE)


def steps_done(events: Path) -> int:
    lines = events.read_text().splitlines() if events.exists() else []
    return sum('"StepDone"' in line for line in lines)


async def wait_for_step(events: Path, step: int) -> None:
    """Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        while steps_done(events) < step:  # noqa: ASYNC110 - another process writes that file
            await asyncio.sleep(0.2)
