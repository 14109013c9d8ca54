"""The keys of connections: encrypted in the database, or in the settings of those made from the environment."""

from __future__ import annotations

from django.db import transaction

from config.app_settings import get_settings
from models_hub import encryption
from models_hub.base import ProviderAuthenticationError
from models_hub.models import Connection
from models_hub.targets import ENGINE


def get_api_key(connection: Connection) -> str:
    """The connection's key in plain text: out of the settings if it was made from the environment.

    Raises ProviderAuthenticationError when the stored key cannot be decrypted.
    """
    if connection.from_environment:
        settings = get_settings()
        return settings.engine_api_key if connection.kind == ENGINE else settings.openai_api_key
    if not connection.encrypted_api_key:
        return ""
    try:
        return encryption.decrypt(connection.encrypted_api_key)
    except encryption.DecryptionError as error:
        raise ProviderAuthenticationError(f"The key of {connection.name}: {error}") from error


def set_api_key(connection: Connection, api_key: str) -> None:
    """Encrypt the key into the object; the caller saves. Raises ValueError for a key no header can carry."""
    api_key = api_key.strip()
    if not (api_key.isascii() and api_key.isprintable()):
        raise ValueError("A key has only plain letters, digits and signs.")
    connection.encrypted_api_key = encryption.encrypt(api_key) if api_key else ""


def rotate_encryption() -> list[str]:
    """Encrypt every stored key anew by the first of ENCRYPTION_KEYS.

    Of one that none of them opens a sentence comes back, and it stays: its connection fails, the others work.
    """
    lost = []
    with transaction.atomic():
        for connection in Connection.objects.exclude(encrypted_api_key="").select_for_update():
            try:
                connection.encrypted_api_key = encryption.rotate(connection.encrypted_api_key)
            except encryption.DecryptionError as error:
                lost.append(f"The key of {connection.name}: {error}")
            else:
                connection.save(update_fields=["encrypted_api_key"])
    return lost
