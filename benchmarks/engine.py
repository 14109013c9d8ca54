"""Tokens a second through the engine over HTTP, beside transformers' bare batching manager in the same run.

    python -m benchmarks.engine [--models FOLDER] [--rounds 3] [--tokens 64] [--streams 1,4,16,32] [--exact]

Rounds alternate between the two, and the table shows medians; the aim is a ratio of at least 0.9. `--exact` asks a
float32 engine the same questions one by one and all at once, and counts the texts that are equal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

KEY = "key-of-the-benchmark"
MODEL = "smollm2-135m-instruct"
SUBJECTS = ("rain", "bread", "the moon", "a lighthouse", "chess", "an old train", "bees", "a harbour", "snow", "tea")
PAGE_TOKENS, PREFILL_TOKENS, MAX_BATCH = 32, 256, 32
QUESTIONS = [
    "What is the capital of France?",
    "Name three fruits.",
    "Explain gravity to a child.",
    "Write one sentence about rain.",
    "What colour is the sky?",
    "Count from one to ten.",
    "What is 12 + 30?",
    "Who wrote Hamlet?",
]


def prompt(number: int) -> str:
    return f"Write a long story, number {number}, about {SUBJECTS[number % len(SUBJECTS)]}."


@dataclass
class Measured:
    tokens: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


class Bare:
    """The library alone: greedy, no HTTP, no text."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa")
        limits = ContinuousBatchingConfig(
            page_size=PAGE_TOKENS,
            num_blocks=MAX_BATCH * 1024 // PAGE_TOKENS,
            max_batch_tokens=PREFILL_TOKENS,
            max_requests_per_batch=MAX_BATCH,
            auto_switch_to_flash=False,
        )
        config = GenerationConfig(do_sample=False, eos_token_id=model.generation_config.eos_token_id)
        self.manager = model.init_continuous_batching(generation_config=config, continuous_batching_config=limits)
        self.manager.start()

    def measure(self, streams: int, tokens: int) -> Measured:
        prompts = [
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt(number)}], add_generation_prompt=True, return_dict=False
            )
            for number in range(streams)
        ]
        started = time.perf_counter()
        for ids in prompts:
            self.manager.add_request(ids, max_new_tokens=tokens, streaming=True)
        written = done = 0
        while done < streams:
            result = self.manager.get_result(timeout=1)
            if result is not None and result.is_finished():
                done += 1
                written += len(result.generated_tokens)
        return Measured(written, time.perf_counter() - started)


class OverHttp:
    """The engine in a process of its own, asked as the web process asks it."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.port = _free_port()
        spawn = multiprocessing.get_context("spawn")
        self.process = spawn.Process(target=run_engine, args=(folder, self.port, dtype), daemon=True)
        self.process.start()

    async def wait_until_ready(self, session: aiohttp.ClientSession) -> None:
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{self.port}/health") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.2)

    async def ask(self, session: aiohttp.ClientSession, text: str, tokens: int, **options: float) -> tuple[str, int]:
        """The streamed text and its number of tokens."""
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **options,
        }
        pieces, written = [], 0
        async with session.post(f"http://127.0.0.1:{self.port}/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line[6:])
                    written = (chunk.get("usage") or {}).get("completion_tokens", written)
                    pieces += [choice["delta"].get("content") or "" for choice in chunk["choices"]]
        return "".join(pieces), written

    async def measure(self, session: aiohttp.ClientSession, streams: int, tokens: int, **options: float) -> Measured:
        started = time.perf_counter()
        answers = await asyncio.gather(
            *(self.ask(session, prompt(number), tokens, **options) for number in range(streams))
        )
        return Measured(sum(written for _, written in answers), time.perf_counter() - started)

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()


def run_engine(folder: Path, port: int, dtype: str) -> None:
    from models_hub.engine.engine import Engine
    from models_hub.engine.options import EngineOptions, ModelSource
    from models_hub.engine.server import Server

    async def serve() -> None:
        options = EngineOptions(
            model_cache_dir=folder.parent, api_key=KEY, default_model=MODEL, max_batch=MAX_BATCH, dtype=dtype
        )
        await Server(Engine({MODEL: ModelSource(str(folder))}.get, options=options)).start("127.0.0.1", port)
        await asyncio.Event().wait()

    asyncio.run(serve())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def compare(session: aiohttp.ClientSession, folder: Path, args: argparse.Namespace) -> None:
    bare, engine = Bare(folder), OverHttp(folder, "bfloat16")
    await engine.wait_until_ready(session)
    bare.measure(1, 4)
    print(f"{'streams':>8}{'bare tok/s':>12}{'engine tok/s':>14}{'ratio':>8}{'sampled tok/s':>15}")
    for streams in args.streams:
        rates: dict[str, list[float]] = {"bare": [], "engine": [], "sampled": []}
        for number in range(args.rounds):
            # Who begins changes from round to round, so that a slow moment hits neither more often.
            order = ["bare", "engine"] if number % 2 else ["engine", "bare"]
            for name in order:
                if name == "bare":
                    measured = await asyncio.to_thread(bare.measure, streams, args.tokens)
                else:
                    measured = await engine.measure(session, streams, args.tokens)
                rates[name].append(measured.rate)
            drawn = await engine.measure(session, streams, args.tokens, temperature=0.7, top_p=0.9)
            rates["sampled"].append(drawn.rate)
        ratio = statistics.median(e / b for e, b in zip(rates["engine"], rates["bare"], strict=True))
        medians = {name: statistics.median(values) for name, values in rates.items()}
        print(
            f"{streams:>8}{medians['bare']:>12.1f}{medians['engine']:>14.1f}{ratio:>8.2f}{medians['sampled']:>15.1f}",
            flush=True,
        )
    engine.stop()
    bare.manager.stop(hard_stop=True)


async def check_exactness(session: aiohttp.ClientSession, folder: Path, tokens: int) -> None:
    engine = OverHttp(folder, "float32")
    await engine.wait_until_ready(session)
    alone = [(await engine.ask(session, question, tokens))[0] for question in QUESTIONS]
    answers = await asyncio.gather(*(engine.ask(session, question, tokens) for question in QUESTIONS))
    equal = sum(one == together for one, (together, _) in zip(alone, answers, strict=True))
    print(f"float32, temperature 0: {equal} of {len(QUESTIONS)} texts together equal the text alone.")
    engine.stop()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("model_cache"), help="a folder with the starter models")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--streams", type=lambda text: [int(item) for item in text.split(",")], default=[1, 4, 16, 32])
    parser.add_argument("--exact", action="store_true", help="also check that texts together equal texts alone")
    args = parser.parse_args()
    from models_hub.starter import import_starter_models

    import_starter_models(args.models)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}, timeout=timeout) as session:
        await compare(session, (args.models / MODEL).resolve(), args)
        if args.exact:
            await check_exactness(session, (args.models / MODEL).resolve(), args.tokens)


if __name__ == "__main__":
    asyncio.run(main())
