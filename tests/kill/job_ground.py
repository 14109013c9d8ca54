"""Where jobs are killed: the whole product with a tiny model to train, a dataset, and a curator with a key."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from models_hub.starter import CHAT_FOLDER, ENCODER_FOLDER
from tests.kill.ground import PASSWORD
from tests.support.product import BASE_DIR, Product

CURATOR, DATASET, BASE = "curator", "Words", "tiny-chat"
ROWS = 60
CHILD = "finetuning.training.child"
BUILD = """
import pathlib, sys
from tests.finetuning.training.builders import save_base
save_base(pathlib.Path(sys.argv[1]))
"""


@contextmanager
def product_with_jobs(folder: Path) -> Iterator[JobProduct]:
    """All processes, ready; everything ended in the end."""
    cache = make_cache(folder / "models")
    product = Product(
        folder, MODEL_CACHE_DIR=str(cache), HUGGINGFACE_MODELS=BASE, MESSAGES_PER_MINUTE="0", USE_GPU="false"
    )
    try:
        product.set_up()
        address = f"{CURATOR}@example.org"
        product.manage("create_user", CURATOR, "--email", address, "--password", PASSWORD, "--admin")
        key = product.manage("create_api_key", CURATOR).strip()
        product.manage("import_dataset", str(write_rows(folder / "words.jsonl")), "--name", DATASET)
        product.start()
        product.wait_until_ready()
        yield JobProduct(product, key)
    finally:
        product.stop()


def make_cache(folder: Path) -> Path:
    """A tiny model of our own beside the starter models, which are only looked at."""
    folder.mkdir()
    shared = Path(os.environ.get("MODEL_CACHE_DIR") or BASE_DIR / "model_cache")
    for name in (CHAT_FOLDER, ENCODER_FOLDER):
        if (shared / name).is_dir():
            (folder / name).symlink_to((shared / name).resolve())
    # In a process of its own: torch would stay in this one.
    subprocess.run([sys.executable, "-c", BUILD, str(folder / BASE)], cwd=BASE_DIR, check=True, capture_output=True)
    return folder


def write_rows(file: Path) -> Path:
    words = ["red", "green", "blue", "yellow"]
    with file.open("w") as stream:
        for number in range(ROWS):
            asked = {"role": "user", "content": f"hello {number}"}
            answered = {"role": "assistant", "content": f"the word is {words[number % 4]}"}
            stream.write(json.dumps({"messages": [asked, answered]}) + "\n")
    return file


class JobProduct:
    """The product as a curator's program sees it, and as its files and rows are."""

    def __init__(self, product: Product, key: str) -> None:
        self.product = product
        self._key = key

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """What the API answers; None while the web process is away. Raises HTTPError for a refusal."""
        request = urllib.request.Request(  # noqa: S310 - our own http address
            f"{self.product.address}/api{path}",
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - our own http address
                return json.load(response)
        except urllib.error.HTTPError:
            raise
        except OSError:
            return None

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Out of the database itself, past everything that could be wrong with the server."""
        path = self.product.settings.data_dir / "dialoop.sqlite3"
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
        try:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]
        finally:
            connection.close()

    def job(self, job_id: str) -> dict[str, Any]:
        return self.rows("SELECT * FROM finetuning_finetuningjob WHERE id = ?", UUID(job_id).hex)[0]

    def folder(self, job_id: str) -> Path:
        return self.product.settings.data_dir / "jobs" / job_id

    def children(self, job_id: str) -> set[int]:
        """The processes that work for this job."""
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
                state = re.search(r"\) (\w)", (process / "stat").read_text())
            except OSError:
                continue
            if CHILD.encode() in command and job_id.encode() in command and state and state[1] != "Z":
                found.add(int(process.name))
        return found
