"""Files and rows for tests of datasets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.db import connection

from config.valkey import get_valkey_sync
from finetuning import datasets
from finetuning.datasets import Draft
from finetuning.formats import ChatExample, ClassificationExample, Message
from finetuning.models import Dataset, DatasetImport

ROOT = Path(__file__).resolve().parents[3]


def chat_row(number: int, answer: str = "") -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": f"Question {number}?"},
            {"role": "assistant", "content": answer or f"Answer {number}."},
        ]
    }


def chat_lines(count: int, *, start: int = 1) -> list[str]:
    return [json.dumps(chat_row(number)) for number in range(start, start + count)]


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


def chat_draft(number: int, **fields: Any) -> Draft:
    example = ChatExample((Message("user", f"Question {number}?"), Message("assistant", f"Answer {number}.")))
    return Draft(example, line=number, **fields)


def labelled_draft(number: int, label: str, **fields: Any) -> Draft:
    return Draft(ClassificationExample(f"Sentence {number}.", label), line=number, **fields)


def fill(dataset: Dataset, drafts: Iterable[Draft], *, is_approved: bool = True) -> Dataset:
    datasets.add_drafts(dataset, drafts, source_import=None, is_approved=is_approved)
    dataset.refresh_from_db()
    return dataset


def upload(dataset: Dataset, content: bytes, *, name: str = "rows.jsonl", **fields: Any) -> DatasetImport:
    """All parts of a small file, sent; not read yet."""
    source_import = datasets.start_upload(dataset, file_name=name, size=len(content), user=None, **fields)
    size = source_import.part_size
    for number in range(1, datasets.count_parts(source_import) + 1):
        datasets.receive_part(source_import, number, content[(number - 1) * size : number * size])
    source_import.refresh_from_db()
    return source_import


def read_upload(dataset: Dataset, content: bytes, **fields: Any) -> DatasetImport:
    """Sent, and read to its end as the worker does."""
    source_import = upload(dataset, content, **fields)
    datasets.run_import(source_import.pk)
    source_import.refresh_from_db()
    return source_import


def waiting() -> list[dict]:
    """The tasks that wait for a worker, with their arguments."""
    messages = [json.loads(text) for text in get_valkey_sync().lrange("default", 0, -1)]
    bodies = [json.loads(b64decode(message["body"])) for message in messages]
    return [
        {"task": message["headers"]["task"], "args": args, "kwargs": kwargs}
        for message, (args, kwargs, _) in zip(messages, bodies, strict=True)
    ]


def start_other_process(code: str) -> subprocess.Popen[bytes]:
    """Django code in a process of its own, on the database of the tests. Needs a test without a transaction."""
    name = connection.settings_dict["NAME"]
    url = f"sqlite:///{name}"
    if connection.vendor == "postgresql":
        url = os.environ["DATABASE_URL"].replace("/postgres?", f"/{name}?")
    command = [sys.executable, "-c", f"import django\ndjango.setup()\n{code}"]
    env = os.environ | {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "config.settings"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
