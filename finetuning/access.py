"""Who may see datasets and jobs: admins, and whoever was given the permission to curate. One rule for every door."""

from __future__ import annotations

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser

from chat.errors import ForbiddenError

CURATE = "finetuning.curate"


def is_curator(user: AbstractBaseUser | AnonymousUser) -> bool:
    return bool(user.is_active and (user.is_superuser or user.has_perm(CURATE)))


def check_curator(user: AbstractBaseUser | AnonymousUser) -> None:
    """Raises ForbiddenError."""
    if not is_curator(user):
        raise ForbiddenError("Datasets and trainings are for admins and for people with the permission to curate.")
