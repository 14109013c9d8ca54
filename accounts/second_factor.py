"""The second factor's secrets at rest: encrypted by the first of ENCRYPTION_KEYS, and opened by any of them."""

from __future__ import annotations

import base64
import logging
import secrets

from allauth.core import context
from allauth.mfa.models import Authenticator
from django.core.exceptions import PermissionDenied
from django.db import transaction

from models_hub import encryption

logger = logging.getLogger(__name__)

SECRETS = ("secret", "seed")  # of an app, of recovery codes
SHOWS_CODES = {"mfa_view_recovery_codes", "mfa_download_recovery_codes"}
WHAT_TO_DO = "put the key it was encrypted with back into ENCRYPTION_KEYS, or remove the second factor in the admin."


def decrypt(token: str) -> str:
    """What no key opens is answered with a secret that nobody has: every code is wrong then, and nothing breaks.

    Raises PermissionDenied on the pages that would show its codes as if they worked.
    """
    try:
        return encryption.decrypt(token)
    except encryption.DecryptionError:
        logger.error("a second factor cannot be decrypted: %s", WHAT_TO_DO)
    match = getattr(context.request, "resolver_match", None)
    if match is not None and match.view_name in SHOWS_CODES:
        raise PermissionDenied("These recovery codes cannot be decrypted.")
    return base64.b32encode(secrets.token_bytes(20)).decode()


def rotate_encryption() -> list[str]:
    """Encrypt every secret anew by the first key. Of one that no key opens a sentence comes back, and it stays."""
    lost: dict[str, None] = {}
    with transaction.atomic():
        # Locked: a recovery code that is used meanwhile must stay used.
        for stored in Authenticator.objects.select_for_update(of=("self",)).select_related("user").order_by("pk"):
            try:
                stored.data |= {name: encryption.rotate(stored.data[name]) for name in SECRETS if name in stored.data}
            except encryption.DecryptionError:
                lost[f"The second factor of {stored.user.username} cannot be decrypted: {WHAT_TO_DO}"] = None
            else:
                stored.save(update_fields=["data"])
    return list(lost)
