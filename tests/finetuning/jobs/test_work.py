"""A job from its rows to a version that answers, with the real child process."""

from __future__ import annotations

from finetuning.jobs import retry_job, work
from finetuning.models import Evaluation, FineTuningJob, Lineage
from models_hub.models import CANDIDATE, PRODUCTION, RegisteredModel
from tests.finetuning.ground import QUICK, make_job

Status = FineTuningJob.Status


def test_job_goes_from_rows_to_a_version_that_answers(base, conversations, child):
    job = make_job(conversations, sample_prompts=["hi hi 3"])
    assert job.status == Status.VALIDATING_FILES

    assert work.validate(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error_message) == (Status.QUEUED, "")
    assert job.preflight["trained_tokens"] > 0

    assert work.run(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error_message) == (Status.SUCCEEDED, "")
    model = RegisteredModel.objects.get(slug="tiny-words")
    version = model.versions.get()
    assert job.result_version == version
    assert (version.source, version.is_ready, version.needs_evaluation) == ("tiny-words/1", True, True)
    assert version.evaluated_at is not None
    assert {alias.name: alias.version for alias in model.aliases.all()} == {CANDIDATE: version, PRODUCTION: version}
    assert (child / "tiny-words" / "1" / "model.safetensors").is_file()
    assert (child / "tiny-words" / "1-adapter" / "adapter_model.safetensors").is_file()
    assert set(version.manifest) >= {"model.safetensors", "config.json"}
    steps = list(job.metrics.filter(loss__isnull=False).values_list("step", flat=True))
    assert steps == [1, 2, 3, 4, 5, 6]
    assert set(job.metrics.filter(evaluation__isnull=False).values_list("step", flat=True)) == {0, 3, 6}
    lineage = Lineage.objects.get(version=version)
    assert lineage.hyperparameters["max_steps"] == 6
    assert lineage.adapter_folder == "tiny-words/1-adapter"
    assert "Code words" in lineage.card
    assert lineage.hyperparameters["max_length"] == job.preflight["hyperparameters"]["max_length"] > 0
    evaluation = Evaluation.objects.get(version=version)
    assert evaluation.status == Evaluation.Status.COMPLETE
    assert {answer["source"] for answer in evaluation.answers} == {"fixed", "sample", "held out"}


def test_check_that_runs_out_of_memory_is_tried_again_with_less(base, conversations, child, monkeypatch):
    """Whoever asks: the suggestion is where that of a failed training is."""
    suggestion = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    error = {"code": "out_of_memory", "message": "Too much.", "suggestion": suggestion}
    monkeypatch.setattr(work.Supervision, "run", lambda _self: {"errors": [error], "samples": []})
    job = make_job(conversations)
    assert work.validate(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error_code) == (Status.FAILED, "preflight")
    assert job.error_details == {"errors": [error], "suggestion": suggestion}
    assert retry_job(job, user=None).hyperparameters == {**QUICK, **suggestion}


def test_check_that_finds_other_errors_suggests_nothing(base, conversations, child, monkeypatch):
    error = {"code": "disk", "message": "Too small."}
    monkeypatch.setattr(work.Supervision, "run", lambda _self: {"errors": [error], "samples": []})
    job = make_job(conversations)
    assert work.validate(job.pk)
    job.refresh_from_db()
    assert job.error_details == {"errors": [error]}
