"""Connections to providers, the models people pick, their immutable versions, and the aliases that point at them."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import models
from django.utils import timezone

PRODUCTION = "production"
# The newest version trained here. It may be pointed at before its evaluation: nobody gets it by a bare slug.
CANDIDATE = "candidate"


class Connection(models.Model):
    """A provider account: where, how and with which key. One made from the environment is read-only in the admin."""

    class Kind(models.TextChoices):
        OPENAI_CHAT = "openai_chat", "OpenAI protocol"
        ENGINE = "engine", "This installation's engine"

    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=20, choices=Kind)
    base_url = models.URLField(blank=True, help_text="Empty: the provider's own address.")
    encrypted_api_key = models.TextField(blank=True, editable=False)
    is_enabled = models.BooleanField(default=True)
    from_environment = models.BooleanField(default=False, editable=False)
    learned_parameters = models.JSONField(
        default=dict, blank=True, editable=False, help_text="What each model of this provider was found to refuse."
    )
    last_checked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_error_code = models.CharField(max_length=50, blank=True, editable=False)
    last_error_message = models.TextField(blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class RegisteredModel(models.Model):
    """What a person picks. Its slug is how every door names it."""

    class Task(models.TextChoices):
        CHAT = "chat", "Chat"
        CLASSIFICATION = "classification", "Text classification"
        FILL_MASK = "fill_mask", "Masked-token generation"

    slug = models.CharField(max_length=200, unique=True)
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    task = models.CharField(max_length=20, choices=Task, default=Task.CHAT)
    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, related_name="models")
    context_window = models.PositiveIntegerField(null=True, blank=True, help_text="Tokens. Empty: not known.")
    default_options = models.JSONField(default=dict, blank=True)
    fallback = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    is_enabled = models.BooleanField(default=True)
    from_environment = models.BooleanField(default=False, editable=False)
    groups = models.ManyToManyField(Group, blank=True, help_text="Who may use it. Empty: everyone.")
    newest_number = models.PositiveIntegerField(
        default=0, editable=False, help_text="The highest its versions ever had: none gets a deleted one's number."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = "model"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.slug


class ModelVersion(models.Model):
    """One immutable state of a model: what the provider calls it, or the folder the engine loads."""

    model = models.ForeignKey(RegisteredModel, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    provider_model = models.CharField(max_length=300, help_text="The name sent to the provider or the engine.")
    source = models.CharField(
        max_length=500, blank=True, help_text="For the engine: a folder under MODEL_CACHE_DIR, a path, or a Hub id."
    )
    revision = models.CharField(max_length=100, blank=True)
    is_ready = models.BooleanField(default=True, help_text="False: registered, but it has no weights to answer with.")
    not_ready_reason = models.CharField(max_length=300, blank=True)
    context_window = models.PositiveIntegerField(null=True, blank=True)
    manifest = models.JSONField(default=dict, blank=True, help_text="SHA-256 of every file.")
    notes = models.TextField(blank=True)
    system_prompt = models.TextField(
        blank=True, help_text="It was trained with this; a conversation's own goes before."
    )
    template_hash = models.CharField(max_length=64, blank=True, help_text="Of the chat template it was trained with.")
    needs_evaluation = models.BooleanField(default=False, help_text="Trained here: no promotion before an evaluation.")
    evaluated_at = models.DateTimeField(null=True, blank=True, editable=False)
    retired_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = "model version"
        ordering = ["model", "-number"]
        constraints = [models.UniqueConstraint(fields=["model", "number"], name="models_hub_version_unique")]

    def __str__(self) -> str:
        return f"{self.model.slug}@{self.number}"


class Alias(models.Model):
    """A name that points at one version of a model. Moved only by `services.move_alias`, which keeps the event."""

    model = models.ForeignKey(RegisteredModel, on_delete=models.CASCADE, related_name="aliases")
    name = models.SlugField(max_length=50, default=PRODUCTION)
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="aliases")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name_plural = "aliases"
        ordering = ["model", "name"]
        constraints = [models.UniqueConstraint(fields=["model", "name"], name="models_hub_alias_unique")]

    def __str__(self) -> str:
        return f"{self.model.slug}@{self.name}"


class AliasEvent(models.Model):
    """The history of an alias: who moved it from where to where, and why. Rows are only ever added.

    The numbers outlive the versions. Without `to_number` the alias was taken away.
    """

    model = models.ForeignKey(RegisteredModel, on_delete=models.CASCADE, related_name="alias_events")
    alias = models.SlugField(max_length=50)
    from_version = models.ForeignKey(ModelVersion, on_delete=models.SET_NULL, null=True, related_name="+")
    to_version = models.ForeignKey(ModelVersion, on_delete=models.SET_NULL, null=True, related_name="+")
    from_number = models.PositiveIntegerField(null=True)
    to_number = models.PositiveIntegerField(null=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    reason = models.CharField(max_length=500)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = "alias event"
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"{self.alias} -> {self.to_number or 'nothing'}"
