"""A real engine in a process of its own, for tests of what talks to one: the starter chat model and two tiny encoders.

Alone: `python -m tests.support.engine CACHE_DIR KEY [NAME=FOLDER ...]` prints its port and serves until its standard
input ends. Named folders are chat models that it serves, too.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CHAT_MODEL, CLASSIFIER, MASK_FILLER = "smollm2-135m-instruct@1", "tiny-classifier@1", "tiny-mask-filler@1"
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class EngineProcess:
    url: str
    process: subprocess.Popen

    def stop(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_engine(cache_dir: Path, key: str, **chat_folders: str) -> EngineProcess:
    """Blocks until it listens; the first time ever, that includes importing the starter model (half a minute)."""
    more = [f"{name}={folder}" for name, folder in chat_folders.items()]
    command = [sys.executable, "-m", "tests.support.engine", str(cache_dir), key, *more]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("PORT "):
            return EngineProcess(f"http://127.0.0.1:{line.split()[1]}", process)
    raise RuntimeError(f"The engine ended with status {process.wait()}.")


async def serve(cache_dir: Path, key: str, chat_folders: dict[str, str]) -> None:
    from models_hub.engine.engine import Engine
    from models_hub.engine.options import EngineOptions, ModelSource, Task
    from models_hub.engine.server import Server
    from models_hub.starter import CHAT_FOLDER, import_starter_models
    from tests.support.tiny_models import build_tiny_models

    import_starter_models(cache_dir)
    build_tiny_models(cache_dir)
    catalog = {
        CHAT_MODEL: ModelSource(CHAT_FOLDER),
        CLASSIFIER: ModelSource("tiny-classifier", task=Task.CLASSIFICATION),
        MASK_FILLER: ModelSource("tiny-mask-filler", task=Task.FILL_MASK),
        **{name: ModelSource(folder) for name, folder in chat_folders.items()},
    }
    options = EngineOptions(model_cache_dir=cache_dir, api_key=key, use_gpu="false")
    server = Server(Engine(catalog.get, options=options, list_names=lambda: catalog))
    port = await server.start("127.0.0.1", 0)
    print(f"PORT {port}", flush=True)
    # When the tests die, however they die, their end of the pipe closes.
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2], dict(entry.split("=", 1) for entry in sys.argv[3:])))
