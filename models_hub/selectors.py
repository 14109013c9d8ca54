"""Reads that know who asks: which models a person may use, and what a client needs to reach one."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.utils import timezone

from config.app_settings import get_settings
from models_hub import breaker
from models_hub.base import ModelNotReadyError, UnknownModelError
from models_hub.models import PRODUCTION, Alias, Connection, ModelVersion, RegisteredModel
from models_hub.provider_keys import get_api_key
from models_hub.targets import ModelCard, ModelTarget

if TYPE_CHECKING:
    from accounts.models import User

# A failed check says that a connection is down for this long; the next check or reply tells more.
CHECK_IS_FRESH = timedelta(minutes=10)


def permitted_models(*, user: User | None) -> QuerySet[RegisteredModel]:
    """Enabled models of enabled connections that this person may use. `None` is the machine's operator."""
    models = RegisteredModel.objects.filter(is_enabled=True, connection__is_enabled=True)
    if user is None or user.is_superuser:
        return models
    mine = user.groups.all() if user.pk else user.groups.none()
    return models.filter(Q(groups=None) | Q(groups__in=mine)).distinct()


def get_model(slug: str, *, user: User | None) -> RegisteredModel:
    """Raises UnknownModelError."""
    model = permitted_models(user=user).filter(slug=slug).first()
    if model is None:
        raise UnknownModelError(f"There is no model {slug!r} that you may use.")
    return model


def resolve_target(slug: str, *, user: User | None) -> ModelTarget:
    """What `slug`, `slug@3` or `slug@production` stands for.

    Raises UnknownModelError when there is no such model or it is not for this person, ModelNotReadyError when it has
    nothing to answer with.
    """
    version = _find_production(slug, user=user) or _find_version(slug, user=user)
    model = version.model
    if version.retired_at is not None:
        raise ModelNotReadyError(f"{version} was retired.")
    if not version.is_ready:
        raise ModelNotReadyError(version.not_ready_reason or f"{model.name} is not ready yet.")
    return _make_target(version)


def list_models(*, user: User | None) -> list[ModelCard]:
    """Every model this person may use, with what the last checks found. Makes no outside call."""
    production = Alias.objects.filter(model=OuterRef("pk"), name=PRODUCTION)
    rows = (
        permitted_models(user=user)
        .select_related("connection")
        .annotate(
            version_number=Subquery(production.values("version__number")),
            version_window=Subquery(production.values("version__context_window")),
            version_is_ready=Subquery(production.values("version__is_ready")),
            version_reason=Subquery(production.values("version__not_ready_reason")),
        )
        .order_by("connection__name", "name")
    )
    return [_make_card(row) for row in rows]


# What every message asks, as one statement: composing the same by querysets costs 2 ms of the web process's time.
_PRODUCTION_SQL = """
SELECT version.id, version.number, version.provider_model, version.is_ready, version.not_ready_reason,
    version.context_window, version.retired_at, model.id, model.slug, model.name, model.task, model.context_window,
    model.default_options, connection.id, connection.kind, connection.base_url, connection.encrypted_api_key,
    connection.from_environment, connection.learned_parameters, fallback.slug, version.system_prompt
FROM models_hub_registeredmodel model
JOIN models_hub_connection connection ON connection.id = model.connection_id AND connection.is_enabled
JOIN models_hub_alias alias ON alias.model_id = model.id AND alias.name = %s
JOIN models_hub_modelversion version ON version.id = alias.version_id
LEFT JOIN models_hub_registeredmodel fallback ON fallback.id = model.fallback_id
WHERE model.slug = %s AND model.is_enabled AND (%s
    OR NOT EXISTS (SELECT 1 FROM models_hub_registeredmodel_groups open_to WHERE open_to.registeredmodel_id = model.id)
    OR EXISTS (
        SELECT 1 FROM models_hub_registeredmodel_groups open_to
        JOIN accounts_user_groups mine ON mine.group_id = open_to.group_id AND mine.user_id = %s
        WHERE open_to.registeredmodel_id = model.id))
"""


def _find_production(slug: str, *, user: User | None) -> ModelVersion | None:
    """The version that a bare slug stands for, with what `_make_target` reads of it; None: look closer."""
    may_use_all = user is None or user.is_superuser
    with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        cursor.execute(_PRODUCTION_SQL, [PRODUCTION, slug, may_use_all, user.pk if user else None])
        row = cursor.fetchone()
    if row is None:
        return None
    connection = Connection(
        id=row[13],
        kind=row[14],
        base_url=row[15],
        encrypted_api_key=row[16],
        from_environment=row[17],
        learned_parameters=json.loads(row[18]),
    )
    model = RegisteredModel(
        id=row[7],
        slug=row[8],
        name=row[9],
        task=row[10],
        context_window=row[11],
        default_options=json.loads(row[12]),
        connection=connection,
        fallback=RegisteredModel(slug=row[19]) if row[19] else None,
    )
    return ModelVersion(
        id=row[0],
        model=model,
        number=row[1],
        provider_model=row[2],
        is_ready=row[3],
        not_ready_reason=row[4],
        context_window=row[5],
        retired_at=row[6],
        system_prompt=row[20],
    )


def _find_version(address: str, *, user: User | None) -> ModelVersion:
    """A slug may itself hold an @, so the whole address is tried as one first."""
    slug, at, selector = address.rpartition("@")
    slugs = {address: PRODUCTION} | ({slug: selector} if at else {})
    models = {model.slug: model for model in permitted_models(user=user).filter(slug__in=slugs)}
    for name, wanted in slugs.items():
        if name in models:
            return _select_version(models[name], wanted)
    raise UnknownModelError(f"There is no model {address!r} that you may use.")


def _select_version(model: RegisteredModel, selector: str) -> ModelVersion:
    versions = ModelVersion.objects.select_related("model__connection", "model__fallback").filter(model=model)
    is_number = selector.isascii() and selector.isdigit() and len(selector) < 10
    found = versions.filter(number=selector) if is_number else versions.filter(aliases__name=selector)
    version = found.first()
    if version is not None:
        return version
    if selector == PRODUCTION:
        raise ModelNotReadyError(f"{model.name} has no version yet.")
    raise UnknownModelError(f"There is no version {selector!r} of {model.slug}.")


def _make_target(version: ModelVersion) -> ModelTarget:
    model, connection = version.model, version.model.connection
    fallback = model.fallback.slug if model.fallback else get_settings().fallback_model
    return ModelTarget(
        slug=model.slug,
        name=model.name,
        task=model.task,
        kind=connection.kind,
        base_url=connection.base_url,
        api_key=get_api_key(connection),
        provider_model=version.provider_model,
        version_id=version.pk,
        version_number=version.number,
        context_window=version.context_window or model.context_window,
        default_options=dict(model.default_options),
        learned_parameters=dict(connection.learned_parameters.get(version.provider_model, {})),
        connection_id=connection.pk,
        fallback_slug=fallback if fallback != model.slug else "",
        system_prompt=version.system_prompt,
    )


def _make_card(model: RegisteredModel) -> ModelCard:
    reason = _reason_against(model)
    return ModelCard(
        slug=model.slug,
        name=model.name,
        description=model.description,
        task=model.task,
        task_label=model.get_task_display(),
        version=model.version_number,
        context_window=model.version_window or model.context_window,
        is_available=not reason,
        reason=reason,
        connection=model.connection.name,
    )


def _reason_against(model: RegisteredModel) -> str:
    if model.version_number is None:
        return "It has no version yet."
    if not model.version_is_ready:
        return model.version_reason or "It is not ready yet."
    if breaker.is_open(model.slug):
        return "It failed several times in a row and is given a rest."
    return _connection_fault(model.connection)


def _connection_fault(connection: Connection) -> str:
    checked = connection.last_checked_at
    if connection.last_error_code and checked and timezone.now() - checked < CHECK_IS_FRESH:
        return connection.last_error_message
    return ""
