"""How much Dialoop adds to a provider: first tokens and deltas through the product, beside the provider alone.

    python -m benchmarks.replies            # embedded default, about four minutes
    python -m benchmarks.replies --quick

It starts the whole product on a data folder of its own, a scripted provider in another process, and a socket a person.
The provider alone is measured in the same run, round about. Every token is the moment at which the provider sent it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

ROOT = Path(__file__).resolve().parent.parent
LONGEST_START = 120
LONGEST_ROUND = 120


@dataclass
class Stream:
    """One answer as its reader saw it."""

    first: float = 0.0
    total: float = 0.0
    delays: list[float] = field(default_factory=list)
    tokens: int = 0
    error: str = ""
    is_whole: bool = True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(command: list[str], env: dict[str, str], log: Path):
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def wait_for(url: str) -> None:
    deadline = time.monotonic() + LONGEST_START
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)
    raise SystemExit(f"{url} did not answer within {LONGEST_START} s.")


def note_tokens(stream: Stream, text: str, rest: str) -> str:
    """Count whole tokens and how long each took from the provider to here; returns the cut token at the end."""
    now = time.monotonic()
    *tokens, rest = (rest + text).split(" ")
    stream.tokens += len(tokens)
    stream.delays += [now - float(token) for token in tokens]
    return rest


async def ask_upstream(session: aiohttp.ClientSession, base_url: str, prompt: str) -> Stream:
    stream, started, rest = Stream(), time.monotonic(), ""
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": prompt}]}
    async with session.post(f"{base_url}/chat/completions", json=body) as response:
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            choices = json.loads(line[6:])["choices"]
            text = choices[0]["delta"].get("content") if choices else None
            if text:
                stream.first = stream.first or time.monotonic() - started
                rest = note_tokens(stream, text, rest)
    stream.total = time.monotonic() - started
    return stream


async def ask_dialoop(ws: aiohttp.ClientWebSocketResponse, prompt: str) -> Stream:
    stream, started, rest, number, shown = Stream(), time.monotonic(), "", 0, []
    await ws.send_json({"type": "message.create", "content": prompt, "model": "scripted"})
    async for message in ws:
        frame = json.loads(message.data)
        kind = frame["type"]
        if kind == "reply.delta":
            stream.first = stream.first or time.monotonic() - started
            number += 1
            stream.is_whole &= frame["sequence_number"] == number
            shown.append(frame["text"])
            rest = note_tokens(stream, frame["text"], rest)
        elif kind == "error":
            stream.error = frame["code"]
            break
        elif kind in ("reply.completed", "reply.failed", "reply.stopped", "reply.interrupted"):
            stream.is_whole &= "".join(shown) == frame["message"]["content"]
            stream.error = (frame["message"]["error"] or {}).get("code", "")
            break
    else:
        stream.error = "socket closed"
    stream.total = time.monotonic() - started
    return stream


class Bench:
    def __init__(self, base_url: str, port: int, keys: list[str]) -> None:
        self._base_url = base_url
        self._url = f"ws://127.0.0.1:{port}/ws/chat/"
        self._keys = keys

    async def alone(self, people: int, prompt: str) -> list[Stream]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            return await self._all([lambda: ask_upstream(session, self._base_url, prompt)] * people)

    async def through(self, people: int, prompt: str) -> list[Stream]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            sockets = [await self._open(session, key) for key in self._keys[:people]]
            asks = [lambda ws=ws: ask_dialoop(ws, prompt) for ws in sockets]
            streams = await self._all(asks)
            for ws in sockets:
                await ws.close()
            return streams

    async def _open(self, session: aiohttp.ClientSession, key: str) -> aiohttp.ClientWebSocketResponse:
        return await session.ws_connect(self._url, headers={"Authorization": f"Bearer {key}"}, max_msg_size=0)

    async def _all(self, asks: list[Callable[[], Awaitable[Stream]]]) -> list[Stream]:
        async with asyncio.timeout(LONGEST_ROUND):
            return list(await asyncio.gather(*(ask() for ask in asks)))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def milliseconds(values: list[float]) -> str:
    return f"{percentile(values, 0.5) * 1000:8.0f} {percentile(values, 0.95) * 1000:8.0f} {max(values) * 1000:8.0f}"


async def measure(bench: Bench, people: int, prompt: str, rounds: int) -> None:
    alone: list[Stream] = []
    through: list[Stream] = []
    for _ in range(rounds):
        alone += await bench.alone(people, prompt)
        through += await bench.through(people, prompt)
    print(f"\n{people} at once, {rounds} round(s): {prompt}")
    print(f"{'':34}{'median':>8} {'95 %':>8} {'max':>8}")
    print(f"  first token, provider alone, ms {milliseconds([stream.first for stream in alone])}")
    print(f"  first token, Dialoop, ms        {milliseconds([stream.first for stream in through])}")
    print(f"  delay a token, provider, ms     {milliseconds([d for stream in alone for d in stream.delays])}")
    print(f"  delay a token, Dialoop, ms      {milliseconds([d for stream in through for d in stream.delays])}")
    whole = statistics.median(s.total for s in alone), statistics.median(s.total for s in through)
    print(f"  whole answer, median s          {whole[0]:.2f} -> {whole[1]:.2f}, ratio {whole[1] / whole[0]:.2f}")
    errors = [stream.error for stream in through if stream.error]
    broken = sum(not stream.is_whole or stream.tokens != alone[0].tokens for stream in through)
    print(f"  errors {len(errors)} {sorted(set(errors))}, answers with a lost or repeated word {broken}")


def make_people(count: int) -> list[str]:
    import django

    django.setup()
    from accounts.models import ApiKey, User

    people = User.objects.bulk_create([User(username=f"bench{n}", email=f"bench{n}@example.org") for n in range(count)])
    return [ApiKey.create_for(person)[1] for person in people]


async def run(bench: Bench, quick: bool) -> None:
    await bench.through(2, "[[tokens=5 text=clock]]")
    rounds = 1 if quick else 5
    await measure(bench, 1, "[[tokens=40 rate=20 text=clock]]", rounds)
    await measure(bench, 20, "[[tokens=20 rate=20 text=clock]]", rounds)
    await measure(bench, 100, "[[tokens=20 rate=20 text=clock]]", rounds)
    await measure(bench, 100, "[[tokens=200 rate=20 text=clock]]", 1)
    await measure(bench, 300, "[[tokens=200 rate=20 text=clock]]", 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep the data folder and say where it is")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dialoop-bench-", ignore_cleanup_errors=True) as folder:
        upstream_port, port, engine_port = free_port(), free_port(), free_port()
        base_url = f"http://127.0.0.1:{upstream_port}/v1"
        os.environ |= {
            "DATA_DIR": folder,
            "PORT": str(port),
            "ENGINE_URL": f"http://127.0.0.1:{engine_port}",
            "OPENAI_BASE_URL": base_url,
            "OPENAI_API_KEY": "benchmark",
            "OPENAI_MODELS": "scripted",
            "MESSAGES_PER_MINUTE": "0",
            "DJANGO_SUPERUSER_USERNAME": "admin",
            "DJANGO_SUPERUSER_EMAIL": "admin@example.org",
            "DJANGO_SUPERUSER_PASSWORD": "a password of the benchmark",
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "LOG_LEVEL": "WARNING",
        }
        env = dict(os.environ)
        logs = Path(tempfile.gettempdir()) / f"dialoop-bench-{port}.log"
        subprocess.run([sys.executable, "manage.py", "setup"], cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
        provider = [sys.executable, "-m", "tests.support.upstream", "--port", str(upstream_port)]
        product = [sys.executable, "-m", "config.serve"]
        with running(provider, env, logs.with_suffix(".upstream")), running(product, env, logs):
            asyncio.run(wait_for(f"http://127.0.0.1:{port}/readyz"))
            keys = make_people(300)
            asyncio.run(run(Bench(base_url, port, keys), arguments.quick))


if __name__ == "__main__":
    main()
