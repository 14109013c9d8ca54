"""Fine-tuning jobs: the row is the truth. A worker claims it with a lease; its child process does the work."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.utils import timezone

from finetuning.models.datasets import Dataset, DatasetVersion

METHODS = (
    ("lora_sft", "LoRA fine-tuning"),
    ("full_sft", "Full fine-tuning"),
    ("dpo", "Preference pairs (DPO)"),
    ("kto", "Rated answers (KTO)"),
    ("classification", "Text classification"),
    ("masked_lm", "Masked-token training"),
)


class Recipe(models.Model):
    """What a job is told to do; a schedule repeats it."""

    method = models.CharField(max_length=16, choices=METHODS)
    base = models.CharField(max_length=300, help_text="Which model is trained: slug, slug@3 or slug@production.")
    target = models.CharField(max_length=200, help_text="Slug of the model the new version belongs to.")
    hyperparameters = models.JSONField(default=dict, blank=True, help_text="What differs from the method's defaults.")
    system_prompt = models.TextField(blank=True, help_text="Trained with, and given to the version for chat.")
    sample_prompts = models.JSONField(default=list, blank=True, help_text="Asked again and again during training.")

    class Meta:
        abstract = True


class Schedule(Recipe):
    """Makes jobs again and again. When it is due, django-celery-beat's periodic task asks whether to start one."""

    name = models.CharField(max_length=200, unique=True)
    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="schedules")
    periodic_task = models.OneToOneField(
        "django_celery_beat.PeriodicTask", on_delete=models.SET_NULL, null=True, editable=False, related_name="+"
    )
    cron = models.CharField(max_length=100, help_text="minute hour day-of-month month day-of-week, e.g. 0 2 * * sun")
    time_zone = models.CharField(max_length=63, default="UTC")
    min_new_examples = models.PositiveIntegerField(default=0, help_text="Approved since its last job; fewer: skipped.")
    is_enabled = models.BooleanField(default=True)
    last_checked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_outcome = models.CharField(max_length=300, blank=True, editable=False)
    last_version = models.ForeignKey(
        DatasetVersion, on_delete=models.SET_NULL, null=True, editable=False, related_name="+"
    )
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class FineTuningJob(Recipe):
    """`status` moves only by compare-and-set on (status, owner token); the lease ends when its heartbeat stops."""

    class Status(models.TextChoices):
        SCHEDULED = "scheduled", "Scheduled"  # waits for `run_at`
        VALIDATING_FILES = "validating_files", "Checking the data"
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Running"
        CANCELLING = "cancelling", "Being cancelled"
        SUCCEEDED = "succeeded", "Succeeded"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200, blank=True)
    status = models.CharField(max_length=16, choices=Status, default=Status.VALIDATING_FILES)
    phase = models.CharField(max_length=16, blank=True, help_text="Within running: loading, training, evaluating ...")
    dataset_version = models.ForeignKey(DatasetVersion, on_delete=models.PROTECT, related_name="jobs")
    base_version = models.ForeignKey("models_hub.ModelVersion", on_delete=models.PROTECT, related_name="trained_jobs")
    schedule = models.ForeignKey(Schedule, on_delete=models.SET_NULL, null=True, related_name="jobs")
    retry_of = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="retries")
    priority = models.SmallIntegerField(default=0, help_text="Higher goes first; then the older one.")
    run_at = models.DateTimeField(null=True, blank=True)
    is_held = models.BooleanField(default=False, help_text="Checked, but it waits until somebody starts it.")
    request_key = models.CharField(
        max_length=64, blank=True, editable=False, help_text="A double click sends it twice."
    )

    owner_token = models.UUIDField(null=True, blank=True, editable=False)
    heartbeat_at = models.DateTimeField(null=True, blank=True, editable=False)
    attempt = models.PositiveIntegerField(default=0, editable=False)
    cancel_requested_at = models.DateTimeField(null=True, blank=True, editable=False)
    event_offset = models.PositiveBigIntegerField(default=0, editable=False, help_text="Bytes of its log stored here.")

    preflight = models.JSONField(null=True, blank=True, editable=False)
    step = models.PositiveIntegerField(default=0, editable=False)
    total_steps = models.PositiveIntegerField(default=0, editable=False)
    eta_seconds = models.FloatField(null=True, blank=True, editable=False)
    device = models.CharField(max_length=50, blank=True, editable=False)
    precision = models.CharField(max_length=16, blank=True, editable=False)
    training_seconds = models.FloatField(default=0, editable=False, help_text="Of all attempts.")
    trained_tokens = models.PositiveBigIntegerField(default=0, editable=False)
    result_version = models.OneToOneField(
        "models_hub.ModelVersion", on_delete=models.SET_NULL, null=True, editable=False, related_name="trained_by"
    )
    error_code = models.CharField(max_length=50, blank=True, editable=False)
    error_message = models.TextField(blank=True, editable=False)
    error_details = models.JSONField(default=dict, blank=True, editable=False)

    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    queued_at = models.DateTimeField(null=True, blank=True, editable=False)
    started_at = models.DateTimeField(null=True, blank=True, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name = "fine-tuning job"
        ordering = ["-created_at", "id"]
        indexes = [models.Index(fields=["status", "-priority", "queued_at"], name="finetuning_job_queue")]
        constraints = [
            models.UniqueConstraint(
                fields=["created_by", "request_key"],
                condition=~models.Q(request_key=""),
                name="finetuning_job_request_unique",
            )
        ]

    def __str__(self) -> str:
        return self.name or str(self.id)

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED_JOBS


class JobMetric(models.Model):
    """One step's figures. A resumed run overwrites the steps it does again, so the curve has no gap and no repeat."""

    job = models.ForeignKey(FineTuningJob, on_delete=models.CASCADE, related_name="metrics")
    step = models.PositiveIntegerField()
    epoch = models.FloatField(null=True)
    loss = models.FloatField(null=True)
    learning_rate = models.FloatField(null=True)
    grad_norm = models.FloatField(null=True)
    tokens_per_second = models.FloatField(null=True)
    evaluation = models.JSONField(null=True, help_text="Held-out metrics after this step; step 0 is the base.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["job", "step"]
        constraints = [models.UniqueConstraint(fields=["job", "step"], name="finetuning_metric_unique")]

    def __str__(self) -> str:
        return f"step {self.step}"


class JobEvent(models.Model):
    """A line of the job's log, for people. Its id is the cursor of pages and API."""

    job = models.ForeignKey(FineTuningJob, on_delete=models.CASCADE, related_name="events")
    level = models.CharField(max_length=8, default="info")
    code = models.CharField(max_length=50)
    message = models.TextField(blank=True)
    data = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = "job event"
        ordering = ["id"]
        indexes = [models.Index(fields=["job", "id"], name="finetuning_job_event")]

    def __str__(self) -> str:
        return self.code


class TrainingQueue(models.Model):
    """One row: whether waiting jobs may start."""

    paused_at = models.DateTimeField(null=True, blank=True)
    paused_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")

    def __str__(self) -> str:
        return "paused" if self.paused_at else "open"


ENDED_JOBS = (FineTuningJob.Status.SUCCEEDED, FineTuningJob.Status.FAILED, FineTuningJob.Status.CANCELLED)
