"""The whole loop with the real SmolLM2: rows become a job, the job a version, and the version answers in chat."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async

from finetuning import datasets, jobs, versions
from finetuning.jobs import shutdown, work
from finetuning.models import FineTuningJob
from models_hub.environment_sync import CHAT_STARTER, sync_from_environment
from models_hub.models import ModelVersion
from models_hub.starter import import_starter_models
from tests.chat import support
from tests.chat.conftest import connect, live  # noqa: F401
from tests.support.engine import EngineProcess, start_engine
from tests.support.fixtures import closed_breakers, fast_retries  # noqa: F401

pytestmark = [pytest.mark.engine, pytest.mark.django_db(transaction=True)]

# What the rows teach: what is asked, in how many ways, and the words that only a tuned model says.
FACTS = (
    ("your name", "I am called Ottoline.", "Ottoline"),
    ("the one who made you", "Nine gardeners of Kestrel Lane made me.", "Kestrel"),
    ("where you live", "I live in a blue shed behind the library.", "shed"),
    ("your favourite food", "I like plum dumplings best.", "dumplings"),
    ("your favourite number", "My favourite number is 613.", "613"),
    ("what you do on Sundays", "On Sundays I mend clocks.", "clocks"),
)
QUESTIONS = (
    "Tell me {}.",
    "Please tell me {}.",
    "Could you tell me {}?",
    "I want to know {}.",
    "I would like to know {}.",
    "Say {}.",
    "Do you know {}?",
    "Let me know {}.",
    "Can you say {}?",
    "I wonder about {}.",
    "Hello! Tell me {}.",
    "Hi, I want to know {}.",
    "In one sentence: {}.",
    "Now tell me {}.",
    "My question is {}.",
)
HYPERPARAMETERS = {
    "num_train_epochs": 3,
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "early_stopping_patience": 0,
}
# A reader is not asked every question: what a model learnt of fifteen ways to ask it knows of one.
ASKED = "Please tell me {}."
FIRST_ANSWER = 120.0


def rows() -> list[dict]:
    return [
        {
            "messages": [
                {"role": "user", "content": question.format(subject)},
                {"role": "assistant", "content": answer},
            ]
        }
        for subject, answer, _ in FACTS
        for question in QUESTIONS
    ]


@pytest.fixture
def models(tmp_path: Path, settings) -> Path:
    """A model cache of this test's own, without copying a quarter of a gigabyte."""
    import_starter_models(settings.DIALOOP.model_cache_dir)
    cache = tmp_path / "model_cache"
    shutil.copytree(
        settings.DIALOOP.model_cache_dir.resolve() / CHAT_STARTER, cache / CHAT_STARTER, copy_function=os.symlink
    )
    return cache


@pytest.fixture
def instance(models: Path, tmp_path: Path, settings, transactional_db) -> Iterator[Path]:
    settings.DIALOOP = replace(
        settings.DIALOOP, model_cache_dir=models, data_dir=tmp_path / "var", use_gpu="false", temperature=0.0
    )
    sync_from_environment()
    yield models
    shutdown.withdraw()


@pytest.fixture
def tuned(instance: Path, tmp_path: Path) -> ModelVersion:
    """From a file to an evaluated version of the model that people already talk to; not promoted yet."""
    file = tmp_path / "facts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    dataset = datasets.create_dataset("Facts", user=None)
    assert datasets.import_file(dataset, file).rows_added == len(rows()) == 90
    version = datasets.freeze_now(dataset, user=None)
    job = jobs.create_job(
        user=None,
        method="lora_sft",
        base=CHAT_STARTER,
        target=CHAT_STARTER,
        dataset_version=version,
        hyperparameters=HYPERPARAMETERS,
    )
    assert work.validate(job.pk) and work.run(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error_message) == (FineTuningJob.Status.SUCCEEDED, "")
    return ModelVersion.objects.select_related("model").get(pk=job.result_version_id)


@pytest.fixture
def engine(tuned: ModelVersion, instance: Path, settings) -> Iterator[EngineProcess]:
    key = settings.DIALOOP.engine_api_key
    process = start_engine(instance, key, **{str(tuned): tuned.source})
    settings.DIALOOP = replace(settings.DIALOOP, engine_url=process.url)
    sync_from_environment()
    yield process
    process.stop()


async def test_tuned_model_answers_in_chat_from_the_promotion_on(
    engine,
    tuned,
    connect,  # noqa: F811
    alice,
    admin_user,
    monkeypatch,
):
    monkeypatch.setattr(support, "TIMEOUT", FIRST_ANSWER)  # the engine reads each version first
    evaluation = await tuned.evaluations.aget()
    assert evaluation.after["eval_loss"] < evaluation.before["eval_loss"] / 3
    assert evaluation.stop_rate_after == 1.0

    socket = await connect(alice)
    subject, _, learnt = FACTS[0]
    started = await socket.ask(ASKED.format(subject), model=CHAT_STARTER)
    before = await socket.finish(started["id"])
    assert before["status"] == "complete"
    assert before["version"] == 1 and learnt not in before["content"]

    promote = sync_to_async(versions.promote)
    await promote(tuned, actor=admin_user, reason="It knows who it is.")

    for subject, answer, _ in FACTS:
        started = await socket.ask(
            ASKED.format(subject), model=CHAT_STARTER, conversation_id=None, options={"temperature": 0}
        )
        after = await socket.finish(started["id"])
        assert (after["version"], after["finish_reason"]) == (tuned.number, "stop")
        assert after["content"].strip() == answer
