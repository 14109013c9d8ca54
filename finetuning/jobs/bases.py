"""Which models may be trained by which method, and which model the result may belong to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from django.db.models import QuerySet
from django.utils.text import slugify

from chat.errors import InvalidError
from finetuning.jobs.folders import HUB_FOLDER, version_folder
from finetuning.models import Dataset, DatasetVersion, FineTuningJob
from finetuning.training.hyperparameters import Method
from finetuning.training.specs import KINDS
from models_hub.models import PRODUCTION, Connection, ModelVersion, RegisteredModel
from models_hub.selectors import permitted_models
from models_hub.targets import CHAT, CLASSIFICATION, FILL_MASK

if TYPE_CHECKING:
    from accounts.models import User

TASK_OF_METHOD = {
    Method.LORA_SFT: CHAT,
    Method.FULL_SFT: CHAT,
    Method.DPO: CHAT,
    Method.KTO: CHAT,
    Method.CLASSIFICATION: CLASSIFICATION,
    Method.MASKED_LM: FILL_MASK,
}
# An encoder is the base of both: its head is made new where it does not fit.
ENCODERS = (CLASSIFICATION, FILL_MASK)
METHOD_OF_KIND = {
    Dataset.Kind.CHAT: Method.LORA_SFT,
    Dataset.Kind.PREFERENCE: Method.DPO,
    Dataset.Kind.KTO: Method.KTO,
    Dataset.Kind.CLASSIFICATION: Method.CLASSIFICATION,
    Dataset.Kind.TEXT: Method.MASKED_LM,
}
SLUG = re.compile(r"[a-z0-9]+(?:[-_.][a-z0-9]+)*")
MAX_SLUG = 100


def parse_method(name: str) -> Method:
    """Raises InvalidError."""
    try:
        return Method(name)
    except ValueError:
        raise InvalidError(f"There is no method {name!r}; there are {', '.join(Method)}.") from None


def trainable_bases(method: str, *, user: User | None) -> list[str]:
    """Addresses of versions that this method can train: on the engine's connection, and their folder is here.

    A version that waits for its head is one of them. The one a bare slug stands for comes first, by its slug.
    """
    addresses = []
    for model in _trainable_models(parse_method(method), user=user):
        production = model.aliases.filter(name=PRODUCTION).values_list("version_id", flat=True).first()
        for version in model.versions.filter(retired_at=None).order_by("-number"):
            if version_folder(version) is not None:
                is_production = version.pk == production
                addresses.append((not is_production, model.slug if is_production else str(version)))
    return [address for _, address in sorted(addresses, key=lambda item: item[0])]


def find_base(address: str, method: Method, *, user: User | None) -> ModelVersion:
    """What `slug`, `slug@3` or `slug@alias` stands for. Raises InvalidError when this method cannot train it."""
    slug, _, selector = address.rpartition("@")
    models = {model.slug: model for model in permitted_models(user=user).filter(slug__in={address, slug})}
    if address in models:
        slug, selector = address, PRODUCTION
    if slug not in models:
        raise InvalidError(f"There is no model {address!r} that you may use. The page of models lists those there are.")
    model = models[slug]
    _check_base_model(model, method)
    version = _find_version(model, selector)
    if version is None:
        raise InvalidError(f"{slug} has no version {selector!r}.")
    if version.retired_at is not None:
        raise InvalidError(f"{version} was retired; take another version of it as the base.")
    base_folder(version)
    return version


def base_folder(version: ModelVersion) -> Path:
    """Raises InvalidError when its weights are not on this machine."""
    folder = version_folder(version)
    if folder is None:
        raise InvalidError(
            f"The weights of {version} are not on this machine, so it cannot be trained. Ask it something once, "
            "so that the engine fetches it, or choose another base."
        )
    return folder


def check_kind(method: Method, version: DatasetVersion) -> None:
    """Raises InvalidError when the method cannot learn from such rows."""
    if version.kind not in KINDS[method]:
        wanted = " or ".join(Dataset.Kind(kind).label.lower() for kind in KINDS[method])
        raise InvalidError(
            f"{version.dataset.name} holds {version.get_kind_display().lower()}; {label_of(method)} needs {wanted}."
        )


def label_of(method: str) -> str:
    return dict(FineTuningJob._meta.get_field("method").choices)[method]


def check_target(slug: str, method: Method) -> None:
    """Raises InvalidError when the result cannot become a version of this model."""
    model = RegisteredModel.objects.select_related("connection").filter(slug=slug).first()
    if model is None:
        if slug == HUB_FOLDER:
            raise InvalidError(
                f"{slug!r} is where the model cache keeps downloads; give the trained model another name."
            )
        if len(slug) > MAX_SLUG or not SLUG.fullmatch(slug):
            raise InvalidError(
                f"{slug!r} cannot be the name of a model: small letters and digits, with - _ or . between them, "
                f"at most {MAX_SLUG} characters."
            )
        return
    if model.connection.kind != Connection.Kind.ENGINE:
        raise InvalidError(f"{slug} belongs to {model.connection.name}; give the trained model a name of its own.")
    task = TASK_OF_METHOD[method]
    if model.task != task:
        raise InvalidError(
            f"{slug} is a model for {model.get_task_display().lower()}, and this method makes one for "
            f"{RegisteredModel.Task(task).label.lower()}; give the trained model a name of its own."
        )


def suggest_target(base: str, dataset: Dataset, *, method: Method | None = None) -> str:
    """A slug for what comes of training this base on this dataset; the same for the same two."""
    slug = base if RegisteredModel.objects.filter(slug=base).exists() else base.rpartition("@")[0] or base
    if method is None and dataset.kind:
        method = METHOD_OF_KIND[Dataset.Kind(dataset.kind)]
    model = RegisteredModel.objects.filter(slug=slug).first()
    fits = model is not None and method is not None and model.task == TASK_OF_METHOD[method]
    if fits and not model.versions.filter(is_ready=True, retired_at=None).exists():
        return slug  # it waits for its first version that can answer
    short = slugify(dataset.name)[:40].strip("-") or f"dataset-{dataset.pk}"
    return f"{slugify(slug.replace('.', '-'))[: MAX_SLUG - 41]}-{short}"


def _trainable_models(method: Method, *, user: User | None) -> QuerySet[RegisteredModel]:
    tasks = ENCODERS if TASK_OF_METHOD[method] in ENCODERS else (CHAT,)
    models = permitted_models(user=user).filter(connection__kind=Connection.Kind.ENGINE, task__in=tasks)
    return models.order_by("slug")


def _check_base_model(model: RegisteredModel, method: Method) -> None:
    if model.connection.kind != Connection.Kind.ENGINE:
        raise InvalidError(
            f"{model.slug} runs at {model.connection.name}; only models of this installation's engine can be trained."
        )
    tasks = ENCODERS if TASK_OF_METHOD[method] in ENCODERS else (CHAT,)
    if model.task not in tasks:
        raise InvalidError(
            f"{model.slug} is a model for {model.get_task_display().lower()}; {label_of(method)} needs another."
        )


def _find_version(model: RegisteredModel, selector: str) -> ModelVersion | None:
    versions = ModelVersion.objects.select_related("model__connection").filter(model=model)
    if selector.isascii() and selector.isdigit() and len(selector) < 10:
        return versions.filter(number=selector).first()
    return versions.filter(aliases__name=selector).first()
