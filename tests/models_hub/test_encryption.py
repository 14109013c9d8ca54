"""Provider keys at rest: encrypted by the first key, opened by any, replaceable."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

from models_hub import encryption, provider_keys, services
from models_hub.base import ProviderAuthenticationError
from models_hub.encryption import DecryptionError, decrypt, encrypt, rotate
from models_hub.models import Connection

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))


@pytest.fixture
def use_keys(settings):
    def use(*keys: str) -> None:
        settings.DIALOOP = replace(settings.DIALOOP, encryption_keys=keys)

    return use


def test_what_is_stored_does_not_show_the_key():
    assert "sk-secret" not in encrypt("sk-secret")
    assert decrypt(encrypt("sk-secret")) == "sk-secret"


def test_an_old_key_still_opens_and_the_first_one_encrypts(use_keys):
    use_keys(OLD)
    stored = encrypt("sk-secret")
    use_keys(NEW, OLD)
    assert decrypt(stored) == "sk-secret"
    rotated = rotate(stored)
    use_keys(NEW)
    assert decrypt(rotated) == "sk-secret"
    with pytest.raises(DecryptionError):
        decrypt(stored)


def test_a_lost_key_says_what_to_do(use_keys):
    use_keys(OLD)
    stored = encrypt("sk-secret")
    use_keys(NEW)
    with pytest.raises(DecryptionError, match="ENCRYPTION_KEYS"):
        decrypt(stored)


@pytest.mark.parametrize("keys", [(), ("short",), (OLD, "not base64 !")])
def test_wrong_keys_name_their_variable(use_keys, keys):
    use_keys(*keys)
    with pytest.raises(ImproperlyConfigured, match="ENCRYPTION_KEYS"):
        encryption.encrypt("x")


def test_a_connection_keeps_no_plain_key(db):
    connection = services.create_connection("Mine", kind="openai_chat", api_key=" sk-secret ")
    stored = Connection.objects.get(pk=connection.pk)
    assert "sk-secret" not in str(vars(stored))
    assert provider_keys.get_api_key(stored) == "sk-secret"


def test_all_connections_move_to_the_first_key(db, use_keys):
    use_keys(OLD)
    connection = services.create_connection("Mine", kind="openai_chat", api_key="sk-secret")
    use_keys(NEW, OLD)
    assert provider_keys.rotate_encryption() == []
    use_keys(NEW)
    connection.refresh_from_db()
    assert provider_keys.get_api_key(connection) == "sk-secret"


def test_a_connection_whose_key_is_lost_is_a_provider_error(db, use_keys):
    use_keys(OLD)
    connection = services.create_connection("Mine", kind="openai_chat", api_key="sk-secret")
    use_keys(NEW)
    with pytest.raises(ProviderAuthenticationError, match="Mine"):
        provider_keys.get_api_key(connection)


def test_a_lost_key_is_named_and_keeps_nothing_else_from_the_first_key(db, use_keys):
    use_keys(OLD)
    lost = services.create_connection("Mine", kind="openai_chat", api_key="sk-lost")
    use_keys(OTHER)
    kept = services.create_connection("Yours", kind="openai_chat", api_key="sk-secret")
    before = lost.encrypted_api_key
    use_keys(NEW, OTHER)
    [sentence] = provider_keys.rotate_encryption()
    assert "Mine" in sentence and "ENCRYPTION_KEYS" in sentence
    use_keys(NEW)
    lost.refresh_from_db()
    kept.refresh_from_db()
    assert (lost.encrypted_api_key, provider_keys.get_api_key(kept)) == (before, "sk-secret")


def test_a_connection_whose_key_is_lost_is_shown_as_failing(db, use_keys):
    use_keys(OLD)
    connection = services.create_connection("Mine", kind="openai_chat", api_key="sk-secret")
    use_keys(NEW)
    services.test_connection(connection)
    connection.refresh_from_db()
    assert connection.last_error_code == "provider_auth"
    assert "ENCRYPTION_KEYS" in connection.last_error_message


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines"])
def test_a_key_no_header_can_carry_is_refused(db, key):
    with pytest.raises(ValueError, match="key"):
        services.create_connection("Mine", kind="openai_chat", api_key=key)
