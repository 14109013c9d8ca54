"""People and the keys their programs use."""

from __future__ import annotations

import hashlib
import secrets

from django.contrib.auth.models import AbstractUser, UserManager
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone

KEY_PREFIX = "dl-"


class User(AbstractUser):
    """A person. Somebody who signed up and waits for an admin is inactive with no `approved_at`."""

    class Theme(models.TextChoices):
        SYSTEM = "system", "Like the device"
        LIGHT = "light", "Light"
        DARK = "dark", "Dark"

    email = models.EmailField("e-mail", max_length=254)
    approved_at = models.DateTimeField(null=True, blank=True, editable=False)
    theme = models.CharField(max_length=8, choices=Theme, default=Theme.SYSTEM)
    default_model = models.CharField(max_length=200, blank=True, help_text="Empty: the installation's default model.")
    training_consent_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = UserManager()

    class Meta(AbstractUser.Meta):
        constraints = [models.UniqueConstraint(Lower("email"), name="accounts_user_email_unique")]

    @property
    def is_waiting(self) -> bool:
        return not self.is_active and self.approved_at is None

    @property
    def name(self) -> str:
        return self.get_full_name() or self.username


def hash_key(key: str) -> str:
    """SHA-256 is enough here: the key is 256 random bits, not something a person chose."""
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def usable(self) -> ApiKeyQuerySet:
        return self.filter(revoked_at=None, user__is_active=True)


class ApiKey(models.Model):
    """A bearer key. Only its hash is stored; `prefix` lets a person tell his keys apart."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100, default="key")
    prefix = models.CharField(max_length=16, editable=False)
    key_hash = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "API key"
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @classmethod
    def create_for(cls, user: User, *, name: str = "key") -> tuple[ApiKey, str]:
        """A new key and its plain text, which is shown once and never stored."""
        plain = KEY_PREFIX + secrets.token_urlsafe(32)
        return cls.objects.create(user=user, name=name, prefix=plain[:8], key_hash=hash_key(plain)), plain
