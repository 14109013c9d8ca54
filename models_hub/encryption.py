"""Encrypts provider keys at rest. The first of ENCRYPTION_KEYS encrypts; every one of them decrypts."""

from __future__ import annotations

from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.core.exceptions import ImproperlyConfigured

from config.app_settings import get_settings


class DecryptionError(Exception):
    """None of ENCRYPTION_KEYS opens what was stored."""

    def __init__(self) -> None:
        super().__init__(
            "A stored key cannot be decrypted: put the key it was encrypted with back into ENCRYPTION_KEYS, "
            "or enter the provider's key again."
        )


def encrypt(plain: str) -> str:
    return _fernet(get_settings().encryption_keys).encrypt(plain.encode()).decode()


def decrypt(token: str) -> str:
    """Raises DecryptionError."""
    try:
        return _fernet(get_settings().encryption_keys).decrypt(token.encode()).decode()
    except InvalidToken:
        raise DecryptionError from None


def rotate(token: str) -> str:
    """The same secret, encrypted by the first key. Raises DecryptionError."""
    try:
        return _fernet(get_settings().encryption_keys).rotate(token.encode()).decode()
    except InvalidToken:
        raise DecryptionError from None


@lru_cache(maxsize=8)
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    if not keys:
        raise ImproperlyConfigured("ENCRYPTION_KEYS is empty: run `python manage.py setup` or set it.")
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        raise ImproperlyConfigured("ENCRYPTION_KEYS holds something that is not a key (32 bytes in base64).") from None
