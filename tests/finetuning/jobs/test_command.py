"""`manage.py finetune`: without any worker it does everything itself."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from finetuning.models import FineTuningJob
from models_hub.models import RegisteredModel
from tests.finetuning.ground import QUICK

SETTINGS = [f"--set={name}={value}" for name, value in QUICK.items()]


def finetune(*arguments: str) -> str:
    out = StringIO()
    call_command("finetune", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_waiting_without_a_worker_trains_here(base, conversations):
    out = finetune("--base", "tiny-chat", "--dataset", "Code words", "--name", "tiny-words", "--wait", *SETTINGS)
    job = FineTuningJob.objects.get()
    assert out.splitlines() == [f"job {job.pk}", "dataset version Code words v1", "succeeded tiny-words@1"]
    assert RegisteredModel.objects.get(slug="tiny-words").versions.count() == 1


def test_classifier_gets_its_head_and_answers_from_then_on(encoder, labelled_texts):
    out = finetune(
        *("--base", "tiny-sentiment", "--dataset", str(labelled_texts.dataset_id), "--name", "tiny-sentiment"),
        *("--wait", "--set", "max_steps=60", "--set", "learning_rate=0.01", "--set", "precision=float32"),
        *("--set", "per_device_train_batch_size=8", "--set", "eval_steps=30"),
    )
    assert out.splitlines()[-1] == "succeeded tiny-sentiment@2"
    production = encoder.aliases.get(name="production").version
    assert (production.number, production.is_ready) == (2, True)


def test_job_is_only_made_without_waiting(base, conversations):
    out = finetune("--base", "tiny-chat", "--dataset", "Code words")
    assert out.splitlines()[-1] == "validating_files"


def test_failed_job_ends_with_its_sentence(base, conversations, child):
    (child / "tiny-chat" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CommandError, match="tiny-chat"):
        finetune("--base", "tiny-chat", "--dataset", "Code words", "--wait")
    assert FineTuningJob.objects.get().status == "failed"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--base", "nobody", "--dataset", "Code words"], "There is no model 'nobody'"),
        (["--base", "tiny-chat", "--dataset", "nothing"], "There is no dataset 'nothing'"),
        (["--base", "tiny-chat", "--dataset", "Code words", "--method", "dpo"], "needs preference pairs"),
        (["--base", "tiny-chat", "--dataset", "Code words", "--set", "lora_r=0"], "lora_r must be at least 1"),
        (["--base", "tiny-chat", "--dataset", "Code words", "--set", "lora=1"], "Unknown hyperparameters: lora"),
        (["--base", "tiny-chat", "--dataset", "Code words", "--set", "lora_r"], "is not KEY=VALUE"),
        (["--base", "tiny-chat", "--dataset", "Code words", "--name", "Not A Slug"], "cannot be the name of a model"),
    ],
)
def test_what_cannot_work_is_refused_before_a_job_is_made(base, conversations, arguments, sentence):
    with pytest.raises(CommandError, match=sentence):
        finetune(*arguments)
    assert not FineTuningJob.objects.exists()
