"""Makes the connections and models that the environment asks for. Repeatable: `manage.py setup` calls it every time."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from django.db import transaction
from django.utils.text import slugify

from config.app_settings import get_settings
from models_hub.models import PRODUCTION, Connection, ModelVersion, RegisteredModel
from models_hub.services import add_version, create_model_cache_dir, move_alias
from models_hub.targets import CHAT, CLASSIFICATION, ENGINE, FILL_MASK, OPENAI_CHAT

logger = logging.getLogger(__name__)

NOTE = "From the environment."
CHAT_STARTER, CLASSIFIER_STARTER = "smollm2-135m-instruct", "distilbert-sentiment"
CLASSIFIER_ENCODER = "distilbert-sentiment-encoder"
WAITS_FOR_HEAD = "It gets its head from the starter fine-tuning job."

# As its makers advise: so small a model loses its thread at the usual temperature. By whether the operator set
# TEMPERATURE himself, which then counts for this model too.
CHAT_STARTER_OPTIONS = {False: {"temperature": 0.2, "top_p": 0.9}, True: {"top_p": 0.9}}

# Tokens each of OpenAI's models reads; the longest matching beginning counts. Its API does not tell.
CONTEXT_WINDOWS = {
    "gpt-3.5-turbo": 16_385,
    "gpt-4": 8_192,
    "gpt-4-turbo": 128_000,
    "gpt-4o": 128_000,
    "gpt-4.1": 1_047_576,
    "gpt-5": 400_000,
    "o1": 200_000,
    "o3": 200_000,
    "o4-mini": 200_000,
}
TASK_OF_ARCHITECTURE = {
    "ForCausalLM": CHAT,
    "LMHeadModel": CHAT,
    "ForSequenceClassification": CLASSIFICATION,
    "ForMaskedLM": FILL_MASK,
}


@dataclass(frozen=True, kw_only=True)
class WantedModel:
    """A model as the environment describes it. An empty `provider_model`: the engine's address of the version."""

    slug: str
    name: str
    task: str = CHAT
    description: str = ""
    provider_model: str = ""
    source: str = ""
    revision: str = ""
    context_window: int | None = None
    not_ready_reason: str = ""
    default_options: dict = field(default_factory=dict)


@dataclass
class SyncReport:
    """What changed, a line each."""

    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        self.lines.append(line)
        logger.info(line)


def sync_from_environment() -> SyncReport:
    """Bring the rows made from the environment in line with it. What it no longer names is disabled, never deleted."""
    report = SyncReport()
    create_model_cache_dir()
    # Looked up before the transaction: a config.json may have to come from the Hub.
    local, remote = list(_wanted_local_models()), list(_wanted_remote_models())
    with transaction.atomic():
        kept = _sync_connection("Engine", ENGINE, get_settings().engine_url, local, report)
        kept |= _sync_connection("OpenAI", OPENAI_CHAT, get_settings().openai_base_url, remote, report)
        _disable_the_rest(kept, report)
    return report


def _wanted_remote_models() -> Iterator[WantedModel]:
    settings = get_settings()
    if not (settings.openai_api_key or settings.openai_base_url):
        return
    for name in settings.openai_models:
        matches = [beginning for beginning in CONTEXT_WINDOWS if name.startswith(beginning)]
        window = CONTEXT_WINDOWS[max(matches, key=len)] if matches else None
        yield WantedModel(slug=name, name=name, provider_model=name, context_window=window)


def _wanted_local_models() -> Iterator[WantedModel]:
    cache = get_settings().model_cache_dir
    starter = _read_config(cache / CHAT_STARTER)
    yield WantedModel(
        slug=CHAT_STARTER,
        name="SmolLM2 135M Instruct",
        description="A small chat model that runs on this machine.",
        source=CHAT_STARTER,
        context_window=_window_of(starter),
        not_ready_reason="" if starter else "It has not been imported yet: run `python manage.py setup`.",
        default_options=CHAT_STARTER_OPTIONS[get_settings().temperature_is_set],
    )
    yield WantedModel(
        slug=CLASSIFIER_STARTER,
        name="DistilBERT sentiment",
        description="Says whether a text sounds positive or negative.",
        task=CLASSIFICATION,
        source=CLASSIFIER_ENCODER,
        context_window=_window_of(_read_config(cache / CLASSIFIER_ENCODER)),
        not_ready_reason=WAITS_FOR_HEAD,
    )
    taken = {CHAT_STARTER, CLASSIFIER_STARTER}
    for entry in get_settings().huggingface_models:
        model = _wanted_huggingface_model(entry, taken)
        taken.add(model.slug)
        yield model


def _wanted_huggingface_model(entry: str, taken: set[str]) -> WantedModel:
    """`entry` is a folder (a path, or under MODEL_CACHE_DIR) or a Hub id, which may name a revision after an @."""
    folder = _find_folder(entry)
    source, _, revision = (_source_of(folder), "", "") if folder else entry.partition("@")
    config = _read_config(folder) if folder else _read_hub_config(source, revision)
    short = slugify(Path(source).name.replace(".", "-"))
    slug = short if short not in taken else slugify(source.strip("/").replace("/", "-").replace(".", "-"))
    return WantedModel(
        slug=slug,
        name=Path(source).name,
        task=_task_of(config),
        description=f"Runs on this machine, from {Path(source).name if folder else source}.",
        source=source,
        revision=revision,
        context_window=_window_of(config),
    )


def _find_folder(entry: str) -> Path | None:
    for folder in (get_settings().model_cache_dir / entry, Path(entry).expanduser()):
        if (folder / "config.json").is_file():
            return folder
    return None


def _source_of(folder: Path) -> str:
    """As the engine names it: relative to the model cache, or else absolute."""
    cache = get_settings().model_cache_dir
    return str(folder.relative_to(cache)) if folder.is_relative_to(cache) else str(folder.resolve())


def _read_config(folder: Path) -> dict:
    try:
        return json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}


def _read_hub_config(repository: str, revision: str) -> dict:
    """The model's config.json from the Hub or its cache; empty when neither has it (the engine will say so)."""
    import httpx2
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    settings = get_settings()
    try:
        file = hf_hub_download(
            repository,
            "config.json",
            revision=revision or None,
            cache_dir=settings.model_cache_dir / "hub",
            token=settings.huggingface_api_token or False,
        )
    except (HFValidationError, httpx2.HTTPError, OSError):
        return {}
    return _read_config(Path(file).parent)


def _task_of(config: dict) -> str:
    for architecture in config.get("architectures") or ():
        for ending, task in TASK_OF_ARCHITECTURE.items():
            if architecture.endswith(ending):
                return task
    return CHAT


def _window_of(config: dict) -> int | None:
    window = config.get("max_position_embeddings") or config.get("n_positions")
    return window if isinstance(window, int) and window > 0 else None


def _sync_connection(name: str, kind: str, base_url: str, wanted: list[WantedModel], report: SyncReport) -> set[int]:
    """The connection and its models; returns the models' ids. Nothing wanted: the connection is disabled."""
    connection = Connection.objects.filter(from_environment=True, kind=kind).first()
    if connection is None:
        if not wanted:
            return set()
        # An admin may have taken the name for a connection of his own.
        is_taken = Connection.objects.filter(name=name).exists()
        name = f"{name} (environment)" if is_taken else name
        connection = Connection.objects.create(name=name, kind=kind, base_url=base_url, from_environment=True)
        report.add(f"Connection {name} made.")
    elif (connection.base_url, connection.is_enabled) != (base_url, bool(wanted)):
        connection.base_url, connection.is_enabled = base_url, bool(wanted)
        connection.save(update_fields=["base_url", "is_enabled"])
        report.add(f"Connection {connection.name} changed.")
    models = (_sync_model(connection, model, report) for model in wanted)
    return {model.pk for model in models if model is not None}


def _sync_model(connection: Connection, wanted: WantedModel, report: SyncReport) -> RegisteredModel | None:
    model = RegisteredModel.objects.filter(slug=wanted.slug).first()
    if model is not None and not model.from_environment:
        report.add(f"Model {wanted.slug} left alone: an admin has registered one of that name.")
        return None
    if model is None:
        model = RegisteredModel.objects.create(
            slug=wanted.slug,
            name=wanted.name,
            description=wanted.description,
            task=wanted.task,
            connection=connection,
            default_options=wanted.default_options,
            from_environment=True,
        )
        report.add(f"Model {wanted.slug} registered.")
    elif (model.connection_id, model.is_enabled, model.task) != (connection.pk, True, wanted.task):
        model.connection, model.is_enabled, model.task = connection, True, wanted.task
        model.save(update_fields=["connection", "is_enabled", "task"])
        report.add(f"Model {wanted.slug} changed.")
    _sync_options(model, wanted, report)
    _sync_version(model, wanted, report)
    return model


def _sync_options(model: RegisteredModel, wanted: WantedModel, report: SyncReport) -> None:
    """What we gave it follows TEMPERATURE; what an admin has entered stays."""
    is_ours = model.slug == CHAT_STARTER and model.default_options in CHAT_STARTER_OPTIONS.values()
    if is_ours and model.default_options != wanted.default_options:
        model.default_options = wanted.default_options
        model.save(update_fields=["default_options"])
        report.add(f"Model {wanted.slug} starts from {wanted.default_options}.")


def _sync_version(model: RegisteredModel, wanted: WantedModel, report: SyncReport) -> None:
    """Versions are immutable: other values make a new one. What an admin or a training promoted stays promoted."""
    latest = model.versions.filter(notes=NOTE).order_by("-number").first()
    if latest is not None and _is_same(latest, wanted):
        _sync_readiness(latest, wanted)
        return
    version = add_version(
        model,
        provider_model=wanted.provider_model,
        source=wanted.source,
        revision=wanted.revision,
        is_ready=not wanted.not_ready_reason,
        not_ready_reason=wanted.not_ready_reason,
        context_window=wanted.context_window,
        notes=NOTE,
    )
    production = model.aliases.filter(name=PRODUCTION).first()
    if production is None or (latest is not None and production.version_id == latest.pk):
        move_alias(model, PRODUCTION, version, actor=None, reason=NOTE, may_wait=True)
    report.add(f"Model {version} made.")


def _is_same(version: ModelVersion, wanted: WantedModel) -> bool:
    name = wanted.provider_model or f"{wanted.slug}@{version.number}"
    is_same = (version.provider_model, version.source, version.revision) == (name, wanted.source, wanted.revision)
    # A window that cannot be read now, or could not when the version was made, is no other value.
    is_known = wanted.context_window is not None and version.context_window is not None
    return is_same and not (is_known and wanted.context_window != version.context_window)


def _sync_readiness(version: ModelVersion, wanted: WantedModel) -> None:
    """Whether the weights are there is a state of this machine, not a value of the version."""
    window = version.context_window or wanted.context_window
    if (version.not_ready_reason, version.context_window) != (wanted.not_ready_reason, window):
        version.is_ready, version.not_ready_reason = not wanted.not_ready_reason, wanted.not_ready_reason
        version.context_window = window
        version.save(update_fields=["is_ready", "not_ready_reason", "context_window"])


def _disable_the_rest(kept: set[int], report: SyncReport) -> None:
    for model in RegisteredModel.objects.filter(from_environment=True, is_enabled=True).exclude(pk__in=kept):
        model.is_enabled = False
        model.save(update_fields=["is_enabled"])
        report.add(f"Model {model.slug} disabled: the environment no longer names it.")
