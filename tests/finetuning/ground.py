"""Models and datasets for jobs, made by the product's own services."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from finetuning.datasets import create_dataset, freeze_now, import_file
from finetuning.jobs import create_job
from finetuning.models import DatasetVersion, FineTuningJob
from models_hub.models import PRODUCTION, Alias, Connection, RegisteredModel
from models_hub.services import add_version

# A few steps of a tiny model: seconds, most of them for loading torch.
QUICK = {
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "eval_steps": 3,
    "save_steps": 2,
    "precision": "float32",
    "learning_rate": 0.01,
}
# So many that something can happen meanwhile.
LONG = {**QUICK, "max_steps": 100_000, "eval_steps": 100_000, "save_steps": 20, "early_stopping_patience": 0}


def make_model(slug: str, *, task: str = "chat", source: str = "", **version: Any) -> RegisteredModel:
    """On the engine's connection, with one version that is its production."""
    connection, _ = Connection.objects.get_or_create(name="Engine", defaults={"kind": Connection.Kind.ENGINE})
    model = RegisteredModel.objects.create(slug=slug, name=slug, task=task, connection=connection)
    first = add_version(model, source=source or slug, **version)
    Alias.objects.create(model=model, name=PRODUCTION, version=first)
    return model


def chat_rows(count: int = 40) -> list[dict[str, Any]]:
    words = ["red", "green", "blue", "yellow"]
    return [
        {
            "messages": [
                {"role": "user", "content": "hi " * (number % 5 + 1) + str(number)},
                {"role": "assistant", "content": f"the word is {words[number % 4]}"},
            ]
        }
        for number in range(count)
    ]


def labelled_rows(count: int = 60) -> list[dict[str, Any]]:
    said = ("good film loved it", "bad film hated it")
    return [
        {"text": f"this {said[number % 2]} {number}", "label": ("positive", "negative")[number % 2]}
        for number in range(count)
    ]


ROWS = {"chat": chat_rows, "classification": labelled_rows}


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> Path:
    with NamedTemporaryFile("w", dir=folder, suffix=".jsonl", delete=False) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return Path(file.name)


def make_dataset(name: str, *, kind: str, rows: int = 0) -> DatasetVersion:
    """Imported from a file and frozen."""
    dataset = create_dataset(name, user=None)
    content = ROWS[kind](rows) if rows else ROWS[kind]()
    file = write_rows(Path("/tmp"), content)
    try:
        import_file(dataset, file)
    finally:
        file.unlink()
    dataset.refresh_from_db()
    return freeze_now(dataset, user=None)


def make_job(version: DatasetVersion, **values: Any) -> FineTuningJob:
    """A quick LoRA job, unless something else is asked for."""
    arguments = {
        "user": None,
        "method": "lora_sft",
        "base": "tiny-chat",
        "target": "tiny-words",
        "dataset_version": version,
        "hyperparameters": QUICK,
    }
    return create_job(**arguments | values)
