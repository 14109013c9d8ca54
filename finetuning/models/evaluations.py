"""What is known of a trained version: where it comes from, and how it did before and after."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from finetuning.models.datasets import DatasetVersion
from finetuning.models.jobs import FineTuningJob


class Lineage(models.Model):
    """Where a trained model version comes from. Written once, with the version."""

    version = models.OneToOneField("models_hub.ModelVersion", on_delete=models.CASCADE, related_name="lineage")
    job = models.ForeignKey(FineTuningJob, on_delete=models.SET_NULL, null=True, related_name="+")
    dataset_version = models.ForeignKey(DatasetVersion, on_delete=models.PROTECT, related_name="lineages")
    base_version = models.ForeignKey("models_hub.ModelVersion", on_delete=models.PROTECT, related_name="descendants")
    base_fingerprint = models.CharField(max_length=64, blank=True)
    method = models.CharField(max_length=16)
    hyperparameters = models.JSONField(default=dict, help_text="All of them, as they were used.")
    template_hash = models.CharField(max_length=64, blank=True)
    packages = models.JSONField(default=dict, blank=True)
    adapter_folder = models.CharField(max_length=500, blank=True)
    card = models.TextField(blank=True, help_text="The model card, Markdown.")
    withdrawn_at = models.DateTimeField(null=True, blank=True, help_text="When somebody withdrew data it has seen.")
    withdrawn_rows = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = "lineage"

    def __str__(self) -> str:
        return f"lineage of {self.version_id}"


class Evaluation(models.Model):
    """A trained version beside its base: on held-out rows, on a general set, and in answers to fixed prompts."""

    class Status(models.TextChoices):
        RUNNING = "running", "Running"
        COMPLETE = "complete", "Complete"
        FAILED = "failed", "Failed"

    version = models.ForeignKey("models_hub.ModelVersion", on_delete=models.CASCADE, related_name="evaluations")
    job = models.ForeignKey(FineTuningJob, on_delete=models.SET_NULL, null=True, related_name="evaluations")
    status = models.CharField(max_length=8, choices=Status, default=Status.RUNNING)
    before = models.JSONField(default=dict, blank=True, help_text="Metrics of the base.")
    after = models.JSONField(default=dict, blank=True, help_text="Metrics of the version.")
    general_before = models.JSONField(default=dict, blank=True, help_text="On the small general set.")
    general_after = models.JSONField(default=dict, blank=True)
    answers = models.JSONField(default=list, blank=True, help_text="prompt, base, tuned, source, has_stopped.")
    stop_rate_before = models.FloatField(null=True, blank=True)
    stop_rate_after = models.FloatField(null=True, blank=True)
    warnings = models.JSONField(default=list, blank=True)
    error_message = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"evaluation of {self.version_id}"


class EvaluationContributor(models.Model):
    """Whose questions an evaluation asked. Plain ids, as in `VersionContributor`."""

    evaluation = models.ForeignKey(Evaluation, on_delete=models.CASCADE, related_name="contributors")
    contributor_id = models.BigIntegerField()
    conversation_id = models.UUIDField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["evaluation", "contributor_id", "conversation_id"], name="finetuning_asked_unique"
            )
        ]
        indexes = [models.Index(fields=["contributor_id"], name="finetuning_asked_person")]

    def __str__(self) -> str:
        return f"{self.contributor_id} in {self.evaluation_id}"
