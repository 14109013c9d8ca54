"""Tells the engine where the model versions in the database are. The engine itself knows no Django."""

from __future__ import annotations

from django.db import DatabaseError, close_old_connections
from django.db.models import QuerySet

from config.app_settings import get_settings
from models_hub.engine.errors import EngineBusyError, ModelNotReadyError
from models_hub.engine.options import ModelSource, Task
from models_hub.models import PRODUCTION, Alias, Connection, ModelVersion


class VersionCatalog:
    """Called in threads. A version is immutable, so its source is asked once; an alias moves, so each time."""

    def __init__(self) -> None:
        self._known: dict[str, ModelSource] = {}

    def __call__(self, name: str) -> ModelSource | None:
        """The source of `slug@3`, `slug@alias` or, for a bare slug, its production version.

        None: there is no such model on the engine. Raises `ModelNotReadyError` for a version without weights.
        """
        source = self._known.get(name)
        if source is not None:
            return source
        try:
            version = _find_version(name)
        except DatabaseError as error:
            raise EngineBusyError("The engine cannot read its database just now; try again soon.") from error
        finally:
            close_old_connections()
        if version is None:
            return None
        source = _source_of(version)
        if name == version.provider_model:
            self._known[name] = source
        return source

    def list_names(self) -> list[str]:
        """The names of the versions that are ready, as `ModelVersion.provider_model` has them."""
        try:
            ready = _engine_versions().filter(is_ready=True, retired_at=None)
            return list(ready.values_list("provider_model", flat=True))
        finally:
            close_old_connections()


def _engine_versions() -> QuerySet[ModelVersion]:
    return ModelVersion.objects.filter(model__connection__kind=Connection.Kind.ENGINE).select_related("model")


def _find_version(name: str) -> ModelVersion | None:
    version = _engine_versions().filter(provider_model=name).order_by("-pk").first()
    if version is not None:
        return version
    slug, _, alias = name.partition("@")
    pointed_at = Alias.objects.filter(model__slug=slug, name=alias or PRODUCTION).values("version_id")
    return _engine_versions().filter(pk__in=pointed_at).first()


def _source_of(version: ModelVersion) -> ModelSource:
    if not version.is_ready:
        reason = version.not_ready_reason or "It has no weights to answer with yet."
        raise ModelNotReadyError(f"{version} is not ready: {reason}", param="model")
    # A version trained here whose folder is gone would otherwise be looked for on the Hub, under somebody's name.
    if version.needs_evaluation and not (get_settings().model_cache_dir / version.source).is_dir():
        raise ModelNotReadyError(f"The folder of {version} is not in the model cache any more.", param="model")
    return ModelSource(version.source, version.revision, Task(version.model.task))
