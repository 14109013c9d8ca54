"""Datasets: what comes in (imports), what people review (examples), what is trained on (frozen versions)."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.utils import timezone


class Dataset(models.Model):
    """Examples of one kind, to be reviewed. Training takes a frozen version of it, never the dataset itself."""

    class Kind(models.TextChoices):
        CHAT = "chat", "Conversations"
        PREFERENCE = "preference", "Preference pairs"
        KTO = "kto", "Rated answers"
        CLASSIFICATION = "classification", "Labelled texts"
        TEXT = "text", "Plain texts"

    name = models.CharField(max_length=200, unique=True)
    kind = models.CharField(max_length=16, choices=Kind, blank=True, help_text="Empty until the first row is read.")
    description = models.TextField(blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-updated_at", "-id"]
        permissions = [("curate", "Can curate datasets and run fine-tuning jobs")]

    def __str__(self) -> str:
        return self.name


class DatasetImport(models.Model):
    """One file, or one selection of conversations, on its way into a dataset. `status` moves by compare-and-set."""

    class Source(models.TextChoices):
        FILE = "file", "File"
        CONVERSATIONS = "conversations", "Conversations"

    class Status(models.TextChoices):
        RECEIVING = "receiving", "Receiving"  # parts of the upload are still missing
        WAITING = "waiting", "Waiting for its columns"  # nothing fits by itself: a person says which column is what
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Reading"
        SUCCEEDED = "succeeded", "Read"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="imports")
    source = models.CharField(max_length=16, choices=Source, default=Source.FILE)
    status = models.CharField(max_length=12, choices=Status, default=Status.RECEIVING)
    file_name = models.CharField(max_length=255, blank=True)
    size = models.PositiveBigIntegerField(default=0, help_text="Bytes of the whole file.")
    part_size = models.PositiveIntegerField(default=0, help_text="Bytes of every part but the last.")
    path = models.CharField(max_length=1000, blank=True, editable=False, help_text="Under DATA_DIR, or absolute.")
    layout = models.JSONField(default=dict, blank=True, help_text="How the file is read; what detection found.")
    filters = models.JSONField(default=dict, blank=True, help_text="Which conversations, for those built from them.")
    is_approved = models.BooleanField(default=True, help_text="Whether its rows need no review.")

    bytes_read = models.PositiveBigIntegerField(default=0)
    rows_read = models.PositiveIntegerField(default=0)
    rows_added = models.PositiveIntegerField(default=0)
    rows_warned = models.PositiveIntegerField(default=0)
    rows_refused = models.PositiveIntegerField(default=0)
    duplicates = models.PositiveIntegerField(default=0)
    findings = models.JSONField(default=dict, blank=True, help_text="Rows with personal data or secrets, by kind.")
    codes = models.JSONField(default=dict, blank=True, help_text="How many rows had each problem.")
    error_code = models.CharField(max_length=50, blank=True)
    error_message = models.TextField(blank=True)

    owner_token = models.UUIDField(null=True, blank=True, editable=False)
    heartbeat_at = models.DateTimeField(null=True, blank=True, editable=False)
    cancel_requested_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True, blank=True, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name = "import"
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.file_name or self.get_source_display()


class ImportProblem(models.Model):
    """What was wrong with one row. Only the first of each kind are kept; `DatasetImport.codes` counts them all."""

    source_import = models.ForeignKey(DatasetImport, on_delete=models.CASCADE, related_name="problems")
    line = models.PositiveIntegerField()
    code = models.CharField(max_length=50)
    severity = models.CharField(max_length=8)
    message = models.TextField()

    class Meta:
        ordering = ["line", "id"]
        indexes = [models.Index(fields=["source_import", "line"], name="finetuning_problem_line")]

    def __str__(self) -> str:
        return f"{self.line}: {self.code}"


class Example(models.Model):
    """One row of a dataset: the dict of `finetuning.formats`, where it comes from, and what people decided."""

    class Status(models.TextChoices):
        PENDING = "pending", "To review"
        APPROVED = "approved", "Approved"
        REJECTED = "rejected", "Rejected"

    class Origin(models.TextChoices):
        FILE = "file", "File"
        ANSWER = "answer", "Answer rated good"
        CORRECTION = "correction", "Corrected answer"
        CHOICE = "choice", "Choice between answers"
        RATING = "rating", "Rating"

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="examples")
    content = models.JSONField()
    content_hash = models.CharField(max_length=64)
    label = models.CharField(max_length=200, blank=True)
    length = models.PositiveIntegerField(default=0, help_text="Characters.")
    group = models.CharField(max_length=200, blank=True, help_text="Rows of one group stay in one split.")
    status = models.CharField(max_length=8, choices=Status, default=Status.PENDING)
    findings = models.JSONField(default=dict, blank=True, help_text="Personal data and secrets found, by kind.")
    original = models.JSONField(null=True, blank=True, help_text="The content before a person changed it.")
    reviewed_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    reviewed_at = models.DateTimeField(null=True, blank=True)

    origin = models.CharField(max_length=12, choices=Origin, default=Origin.FILE)
    source_import = models.ForeignKey(DatasetImport, on_delete=models.SET_NULL, null=True, related_name="examples")
    line = models.PositiveIntegerField(default=0)
    # Plain ids, not foreign keys: deleting a person or a conversation must leave a trace for `withdrawal` to act on.
    contributor_id = models.BigIntegerField(null=True, blank=True)
    conversation_id = models.UUIDField(null=True, blank=True)
    message_id = models.UUIDField(null=True, blank=True)
    model_version = models.ForeignKey(
        "models_hub.ModelVersion", on_delete=models.SET_NULL, null=True, related_name="+", help_text="Who wrote it."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["dataset", "content_hash"], name="finetuning_example_unique")]
        indexes = [
            models.Index(fields=["dataset", "status", "id"], name="finetuning_example_review"),
            models.Index(
                fields=["contributor_id"],
                name="finetuning_example_person",
                condition=models.Q(contributor_id__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"example {self.pk}"


class DatasetVersion(models.Model):
    """The approved examples of one moment, frozen: ordered, split, hashed, in files under `folder`."""

    class Status(models.TextChoices):
        FREEZING = "freezing", "Freezing"
        READY = "ready", "Ready"
        FAILED = "failed", "Failed"

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=16, choices=Dataset.Kind)
    status = models.CharField(max_length=8, choices=Status, default=Status.FREEZING)
    content_hash = models.CharField(max_length=64, blank=True, help_text="SHA-256 over examples, order and splits.")
    seed = models.PositiveIntegerField(default=42)
    shares = models.JSONField(default=dict, blank=True, help_text="The share of each split but train.")
    counts = models.JSONField(default=dict, blank=True, help_text="Rows of each split.")
    rows = models.PositiveIntegerField(default=0)
    folder = models.CharField(max_length=500, blank=True, help_text="Under DATA_DIR: a JSONL file for each split.")
    report = models.JSONField(default=dict, blank=True, help_text="Lengths, labels, warnings.")
    notes = models.TextField(blank=True)
    error_message = models.TextField(blank=True)
    redacted_at = models.DateTimeField(null=True, blank=True, help_text="When withdrawn rows were taken out.")
    redacted_rows = models.PositiveIntegerField(default=0)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = "dataset version"
        ordering = ["dataset", "-number"]
        constraints = [models.UniqueConstraint(fields=["dataset", "number"], name="finetuning_version_unique")]

    def __str__(self) -> str:
        return f"{self.dataset.name} v{self.number}"


class VersionContributor(models.Model):
    """Whose conversations a frozen version holds. Plain ids: the trace must outlive the person's account."""

    version = models.ForeignKey(DatasetVersion, on_delete=models.CASCADE, related_name="contributors")
    contributor_id = models.BigIntegerField()
    conversation_id = models.UUIDField(null=True)
    rows = models.PositiveIntegerField(default=0)
    corrections = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version", "contributor_id", "conversation_id"], name="finetuning_contributor_unique"
            )
        ]
        indexes = [models.Index(fields=["contributor_id"], name="finetuning_contributor_person")]

    def __str__(self) -> str:
        return f"{self.contributor_id} in {self.version_id}"
