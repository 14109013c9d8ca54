"""Writes of the models hub: connections, model versions, aliases. Nothing here streams a reply."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils import timezone

from config.app_settings import get_settings
from models_hub.base import ModelHubError
from models_hub.clients import check_connection, close_clients
from models_hub.models import CANDIDATE, PRODUCTION, Alias, AliasEvent, Connection, ModelVersion, RegisteredModel
from models_hub.provider_keys import get_api_key, set_api_key
from models_hub.selectors import resolve_target
from models_hub.targets import CHAT, ENGINE, ModelTarget

if TYPE_CHECKING:
    from accounts.models import User

logger = logging.getLogger(__name__)


class AliasMoveError(ValueError):
    """An alias cannot be moved like this. The sentence says why."""


def create_model_cache_dir() -> Path:
    """The folder local models live in, made if it is not there yet."""
    folder = get_settings().model_cache_dir
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def get_model_config(slug: str) -> ModelTarget:
    """Everything needed to talk to a model, for the machine's operator. Raises a ModelHubError."""
    return resolve_target(slug, user=None)


# Connections


def create_connection(name: str, *, kind: str, base_url: str = "", api_key: str = "") -> Connection:
    connection = Connection(name=name, kind=kind, base_url=base_url.rstrip("/"))
    set_api_key(connection, api_key)
    connection.save()
    return connection


def update_connection(connection: Connection, *, api_key: str | None = None, **changes: object) -> Connection:
    """Change columns, and the key if one is given: None keeps it, an empty one removes it."""
    for column, value in changes.items():
        setattr(connection, column, value)
    columns = list(changes)
    if api_key is not None:
        set_api_key(connection, api_key)
        columns.append("encrypted_api_key")
    connection.save(update_fields=columns)
    return connection


def test_connection(connection: Connection) -> ModelHubError | None:
    """Ask the provider for its models, and store what came of it. Blocks; call it outside any transaction."""
    error = None
    try:
        asyncio.run(_list_models(connection))
    except ModelHubError as found:
        error = found
    record_check(connection, error)
    return error


def say_engine_is_up() -> None:
    """By the engine itself, once it answers: a check during its start has shown it as down. Blocks."""
    for connection in Connection.objects.filter(kind=ENGINE, base_url=get_settings().engine_url):
        record_check(connection, None)


def record_check(connection: Connection, error: ModelHubError | None) -> None:
    connection.last_checked_at = timezone.now()
    connection.last_error_code = error.code if error else ""
    connection.last_error_message = error.message if error else ""
    connection.save(update_fields=["last_checked_at", "last_error_code", "last_error_message"])
    logger.info("connection %s checked: %s", connection.pk, connection.last_error_code or "ok")


async def _list_models(connection: Connection) -> None:
    try:
        await check_connection(_connection_target(connection))
    finally:
        await close_clients()


def _connection_target(connection: Connection) -> ModelTarget:
    """A target without a model, to talk to the provider itself."""
    return ModelTarget(
        slug="",
        name=connection.name,
        task=CHAT,
        kind=connection.kind,
        base_url=connection.base_url,
        api_key=get_api_key(connection),
        provider_model="",
        version_id=0,
        version_number=0,
        context_window=None,
        default_options={},
        learned_parameters={},
        connection_id=connection.pk,
    )


# Versions and aliases


def add_version(
    model: RegisteredModel, *, number: int | None = None, provider_model: str = "", **columns: Any
) -> ModelVersion:
    """The next version of a model, or one with a number of `take_number`.

    Without `provider_model` it is `slug@number`, as the engine addresses its own.
    """
    with transaction.atomic():
        number = number or take_number(model)
        name = provider_model or f"{model.slug}@{number}"
        return ModelVersion.objects.create(model=model, number=number, provider_model=name, **columns)


def take_number(model: RegisteredModel) -> int:
    """Never one that a deleted version had: engine, browser caches and people's notes know things by it."""
    with transaction.atomic():
        newest = RegisteredModel.objects.select_for_update().get(pk=model.pk).newest_number
        highest = model.versions.order_by("-number").values_list("number", flat=True).first() or 0
        number = max(newest, highest) + 1
        RegisteredModel.objects.filter(pk=model.pk).update(newest_number=number)
    return number


def move_alias(
    model: RegisteredModel,
    alias: str,
    version: ModelVersion,
    *,
    actor: User | None,
    reason: str,
    may_wait: bool = False,
) -> AliasEvent:
    """Point an alias at a version and keep who did it and why. Raises AliasMoveError.

    `may_wait`: production may point at a version that is not ready, as set-up registers one before it has weights.
    """
    with transaction.atomic():
        RegisteredModel.objects.select_for_update().get(pk=model.pk)
        version = _read_again(version)
        check_move(model, alias, version, reason, may_wait=may_wait)
        row = Alias.objects.select_related("version").filter(model=model, name=alias).first()
        Alias.objects.update_or_create(model=model, name=alias, defaults={"version": version})
        return _keep_event(model, alias, row.version if row else None, version, actor=actor, reason=reason)


def _read_again(version: ModelVersion) -> ModelVersion:
    """What the caller has read may be outdated by now, or deleted."""
    found = ModelVersion.objects.select_related("model").filter(pk=version.pk).first()
    if found is None:
        raise AliasMoveError(f"Version {version.number} is no longer there.")
    return found


def remove_alias(alias: Alias, *, actor: User | None, reason: str) -> AliasEvent:
    """Take it away; what it was and why stays in the history."""
    with transaction.atomic():
        alias.delete()
        return _keep_event(alias.model, alias.name, alias.version, None, actor=actor, reason=reason)


def _keep_event(
    model: RegisteredModel,
    alias: str,
    before: ModelVersion | None,
    after: ModelVersion | None,
    *,
    actor: User | None,
    reason: str,
) -> AliasEvent:
    return AliasEvent.objects.create(
        model=model,
        alias=alias,
        from_version=before,
        to_version=after,
        from_number=before and before.number,
        to_number=after and after.number,
        actor=actor,
        reason=reason.strip(),
    )


def check_move(
    model: RegisteredModel, alias: str, version: ModelVersion, reason: str, *, may_wait: bool = False
) -> None:
    """The gate, the only one. Raises AliasMoveError when `move_alias` would."""
    if not reason.strip():
        raise AliasMoveError("Moving an alias needs a reason.")
    if len(reason) > 500:
        raise AliasMoveError("The reason may be 500 characters long.")
    if not alias or len(alias) > 50 or not alias.replace("-", "").replace("_", "").isalnum() or alias.isdigit():
        raise AliasMoveError("An alias is a short word such as production.")
    if version.model_id != model.pk:
        raise AliasMoveError(f"That version is not one of {model.slug}.")
    if version.retired_at is not None:
        raise AliasMoveError(f"Version {version.number} was retired.")
    if Alias.objects.filter(model=model, name=alias, version=version).exists():
        raise AliasMoveError(f"{model.slug}@{alias} is version {version.number} already.")
    if alias != CANDIDATE and version.needs_evaluation and version.evaluated_at is None:
        raise AliasMoveError(f"Version {version.number} has not been evaluated yet. Evaluate it, then promote it.")
    if alias == PRODUCTION and not version.is_ready and not may_wait:
        why = version.not_ready_reason or "it has nothing to answer with yet"
        raise AliasMoveError(f"Version {version.number} is not ready, so it cannot be production: {why}")
