"""What becomes of a trained version: promoted, rolled back, retired, deleted. Reports and export live beside this.

The doors ask who may; the gate itself is `models_hub.services.check_move`.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import structlog
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError
from django.utils import timezone

from chat.errors import BusyError, InvalidError
from finetuning.models import Evaluation, FineTuningJob, Schedule
from finetuning.models.jobs import ENDED_JOBS
from finetuning.versions.files import export_version, own_folders
from finetuning.versions.reports import compare
from models_hub import services
from models_hub.models import CANDIDATE, PRODUCTION, AliasEvent, ModelVersion, RegisteredModel
from models_hub.services import AliasMoveError

if TYPE_CHECKING:
    from accounts.models import User

__all__ = ["compare", "delete_version", "export_version", "find_previous", "promote", "retire", "roll_back"]
logger = structlog.get_logger(__name__)


def promote(version: ModelVersion, *, actor: User | None, reason: str, alias: str = PRODUCTION) -> AliasEvent:
    """Point the alias at the version; the next message is answered by it. Raises InvalidError."""
    try:
        return services.move_alias(version.model, alias, version, actor=actor, reason=reason)
    except AliasMoveError as error:
        raise InvalidError(str(error)) from error


def roll_back(
    model: RegisteredModel, *, actor: User | None, reason: str, alias: str = PRODUCTION, current: int | None = None
) -> AliasEvent:
    """Point the alias where it pointed before. Raises InvalidError when there is nothing to go back to.

    `current`: the version that whoever asks has seen there. Raises BusyError when it is another by now, so that two
    people who press the button at once go back one step, not two.
    """
    with transaction.atomic():
        RegisteredModel.objects.select_for_update().get(pk=model.pk)
        now = model.aliases.select_related("version").filter(name=alias).first()
        if current is not None and (now is None or now.version.number != current):
            raise BusyError(f"{model.slug}@{alias} was moved meanwhile. Look again before you roll back.")
        previous = find_previous(model, alias)
        if previous is None:
            raise InvalidError(f"There is no earlier version that {model.slug}@{alias} could go back to.")
        return promote(previous, actor=actor, reason=reason, alias=alias)


def find_previous(model: RegisteredModel, alias: str = PRODUCTION) -> ModelVersion | None:
    """The version that `roll_back` would go to.

    Going back twice goes back two steps, not forth again: a move to where the alias came from takes that step back.
    Versions that the gate refuses by now (retired, deleted) are passed over.
    """
    steps: list[int] = []
    events = AliasEvent.objects.filter(model=model, alias=alias, to_number__isnull=False)
    for number in events.order_by("created_at", "id").values_list("to_number", flat=True):
        if steps[-2:-1] == [number]:
            steps.pop()
        elif steps[-1:] != [number]:
            steps.append(number)
    versions = {version.number: version for version in model.versions.filter(number__in=steps)}
    earlier = (versions[number] for number in reversed(steps[:-1]) if number in versions)
    return next((version for version in earlier if _may_move(model, alias, version)), None)


def _may_move(model: RegisteredModel, alias: str, version: ModelVersion) -> bool:
    try:
        services.check_move(model, alias, version, "asked only")
    except AliasMoveError:
        return False
    return True


def retire(version: ModelVersion, *, actor: User | None = None) -> ModelVersion:
    """Nobody can ask it any more; what it wrote stays. Raises BusyError while an alias other than candidate uses it."""
    model = version.model
    with transaction.atomic():
        RegisteredModel.objects.select_for_update().get(pk=model.pk)
        for alias in version.aliases.select_related("model", "version"):
            if alias.name != CANDIDATE:
                raise BusyError(f"{alias} points at version {version.number}. Move it to another version first.")
            services.remove_alias(alias, actor=actor, reason=f"Version {version.number} was retired.")
        if not ModelVersion.objects.filter(pk=version.pk, retired_at=None).update(retired_at=timezone.now()):
            raise InvalidError(f"Version {version.number} was retired already.")
    version.refresh_from_db(fields=["retired_at"])
    return version


def delete_version(version: ModelVersion) -> None:
    """The row, then the folders that training made for it. Raises BusyError while anything uses or names it."""
    name, folders = str(version), own_folders(version)
    try:
        with transaction.atomic():
            RegisteredModel.objects.select_for_update().get(pk=version.model_id)
            if use := _use_of(version):
                raise BusyError(f"{name} cannot be deleted: {use} Retire it, and nobody can ask it any more.")
            version.delete()
    except (ProtectedError, IntegrityError) as error:  # something began to use it while we looked
        raise BusyError(f"{name} cannot be deleted: it has just come into use.") from error
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            logger.error("version_folder_left", version=name, folder=folder.name)
    logger.info("version_deleted", version=name)


def _use_of(version: ModelVersion) -> str:
    """A sentence about what uses or names it; empty when nothing does."""
    jobs = FineTuningJob.objects.filter(base_version=version)
    others = ModelVersion.objects.exclude(pk=version.pk)
    if aliases := sorted(version.aliases.values_list("name", flat=True)):
        return f"{' and '.join(aliases)} points at it."
    if version.replies.exists():
        return "it wrote replies, and each names its version."
    if jobs.exclude(status__in=ENDED_JOBS).exists():
        return "a fine-tuning job is training from it."
    running = Evaluation.objects.filter(version=version, status=Evaluation.Status.RUNNING)
    if running.exclude(job__status__in=ENDED_JOBS).exists():  # a worker that died has left one behind
        return "it is being evaluated."
    if version.descendants.exists() or jobs.exists():
        return "others were trained from it."
    if Schedule.objects.filter(base=str(version)).exists():
        return "a schedule trains from it."
    if own_folders(version) and (other := others.filter(source=version.source).first()):
        return f"{other} is loaded from the same folder."
    return ""
