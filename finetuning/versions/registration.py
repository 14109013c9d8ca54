"""Makes a model version of what a training gave: the files are moved first, then everything is written at once.

What was moved stands in `registration.json` in the job's folder, so that a worker that dies in between costs nothing.
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils import timezone

from config.app_settings import get_settings
from finetuning.jobs.bases import TASK_OF_METHOD
from finetuning.jobs.folders import RUN, SPEC, job_folder, read_json, write_json
from finetuning.jobs.states import JobFailedError, Lease, LostLeaseError, Status, add_event
from finetuning.live.nudges import announce_job
from finetuning.models import FineTuningJob, Lineage
from finetuning.training.hyperparameters import Method
from finetuning.versions.card import write_card
from models_hub.models import CANDIDATE, Connection, ModelVersion, RegisteredModel
from models_hub.services import add_version, move_alias, take_number

RECORD = "registration.json"
MANIFEST = "manifest.json"
MODEL, ADAPTER = "model", "adapter"
TRIES = 5

logger = logging.getLogger(__name__)


class NumberTakenError(Exception):
    """Another version got this number meanwhile."""


def find_moved(job: FineTuningJob) -> dict[str, Any] | None:
    """The result of a run whose registration was begun and not ended."""
    record = read_json(job_folder(job.pk) / RECORD)
    moves = record.get("moves", {})
    whole = all(Path(source).is_dir() or Path(target).is_dir() for source, target in moves.items())
    return record["result"] if moves and whole else None


def register(job: FineTuningJob, result: dict[str, Any], lease: Lease) -> ModelVersion:
    """The version, its lineage and the alias candidate, or nothing. Only while the lease holds.

    Raises JobFailedError when the files cannot be moved, LostLeaseError, and django.db.Error.
    """
    for _ in range(TRIES):
        try:
            record = _move_files(job, result)
            with transaction.atomic():
                version = _write_rows(job, result, record, lease)
        except NumberTakenError:
            _move_back(job, read_json(job_folder(job.pk) / RECORD))
            continue
        except (LostLeaseError, JobFailedError):
            _move_back(job, read_json(job_folder(job.pk) / RECORD))
            raise
        (job_folder(job.pk) / RECORD).unlink(missing_ok=True)
        logger.info("job %s gave %s", job.pk, version)
        return version
    raise JobFailedError("busy", f"{job.target} gets versions from elsewhere all the time; resume the job later.")


# --- files ------------------------------------------------------------------------------------------------------------


def _move_files(job: FineTuningJob, result: dict[str, Any]) -> dict[str, Any]:
    """Under the model cache, where the engine finds them. Returns what was moved where, as it was kept.

    Raises NumberTakenError when another training has put its files there: only one may take them back again.
    """
    file = job_folder(job.pk) / RECORD
    try:
        record = read_json(file) or _plan(job, result)
        write_json(file, record)
        for source, target in record["moves"].items():
            if _is_taken(Path(source), Path(target)):
                raise NumberTakenError
            if not Path(target).is_dir():
                _relocate(Path(source), Path(target))
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
        raise JobFailedError(
            "disk", f"The result could not be moved to the model cache: {reason}. Make room, then resume the job."
        ) from error
    return record


def _plan(job: FineTuningJob, result: dict[str, Any]) -> dict[str, Any]:
    number = _free_number(job.target)
    names = {MODEL: f"{job.target}/{number}", ADAPTER: f"{job.target}/{number}-{ADAPTER}"}
    folders = {part: Path(folder) for part, folder in result["folders"].items()}
    cache = get_settings().model_cache_dir
    return {
        "number": number,
        "names": {part: names[part] for part in folders},
        "moves": {str(folder): str(cache / names[part]) for part, folder in folders.items()},
        "result": result,
    }


def _free_number(slug: str) -> int:
    """Of a model that is there, one that is ours from now on; of a new one, the first without a folder."""
    model = RegisteredModel.objects.filter(slug=slug).first()
    number = take_number(model) if model else 1
    while (get_settings().model_cache_dir / slug / str(number)).exists():
        number = take_number(model) if model else number + 1
    return number


def _is_taken(source: Path, target: Path) -> bool:
    """Both are there: somebody else's files, or our own copy on another file system, whose original was not removed."""
    return source.is_dir() and target.exists() and read_json(source / MANIFEST) != read_json(target / MANIFEST)


def _relocate(source: Path, target: Path) -> None:
    """A folder with the target's name is always whole, on another file system too.

    Raises OSError, and NumberTakenError when somebody was quicker.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise NumberTakenError from error
        if error.errno != errno.EXDEV:
            raise
        fresh = target.with_name(f".{target.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            shutil.copytree(source, fresh)
            fresh.rename(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(source, ignore_errors=True)


def _move_back(job: FineTuningJob, record: dict[str, Any]) -> None:
    """Nothing half-registered stays behind; the job may be resumed, and then finds its result where it was."""
    for source, target in record.get("moves", {}).items():
        if Path(target).is_dir() and not Path(source).exists():
            _relocate(Path(target), Path(source))
    (job_folder(job.pk) / RECORD).unlink(missing_ok=True)


# --- rows -------------------------------------------------------------------------------------------------------------


def _write_rows(job: FineTuningJob, result: dict[str, Any], record: dict[str, Any], lease: Lease) -> ModelVersion:
    """Within a transaction. Raises NumberTakenError, LostLeaseError."""
    mine = FineTuningJob.objects.filter(pk=job.pk, status=Status.RUNNING, owner_token=lease.token)
    if not mine.update(phase="registering"):
        raise LostLeaseError
    model = _find_or_make_model(job)
    number = _settle_number(model, record["number"])
    folder = get_settings().model_cache_dir / record["names"][MODEL]
    version = add_version(
        model,
        number=number,
        source=record["names"][MODEL],
        context_window=_context_window(folder) or job.base_version.context_window,
        manifest=read_json(folder / MANIFEST).get("files", {}),
        notes=f"Trained from {job.base_version} on {job.dataset_version}.",
        system_prompt=job.system_prompt,
        template_hash=result.get("template_hash", ""),
        needs_evaluation=True,
    )
    job.refresh_from_db(fields=["step", "device", "precision"])  # it was read before the run
    lineage = _write_lineage(job, version, result, record)
    move_alias(model, CANDIDATE, version, actor=job.created_by, reason=f"Trained by the job {job.name}."[:500])
    mine.update(result_version=version, trained_tokens=result.get("tokens", 0))
    Lineage.objects.filter(pk=lineage.pk).update(card=write_card(version, lineage, job))
    add_event(job.pk, "registered", f"Registered as {version}.", data={"version": str(version)})
    announce_job(job.pk)
    return version


def _find_or_make_model(job: FineTuningJob) -> RegisteredModel:
    """A new one may be used by whom its base may be used by: what was learnt of a model is not for more people."""
    base = job.base_version.model
    task = TASK_OF_METHOD[Method(job.method)]
    columns = {
        "name": job.target,
        "description": f"Trained from {base.name} on {job.dataset_version.dataset.name}.",
        "task": task,
        "connection": base.connection,
        "default_options": base.default_options,
    }
    models = RegisteredModel.objects.select_related("connection")
    model, is_new = models.get_or_create(slug=job.target, defaults=columns)
    if is_new:
        model.groups.set(base.groups.all())
    elif model.task != task or model.connection.kind != Connection.Kind.ENGINE:
        raise JobFailedError(
            "target", f"Meanwhile {job.target} has become a model of another kind. Train again under another name."
        )
    return model


def _settle_number(model: RegisteredModel, number: int) -> int:
    """The files are under this number. Raises NumberTakenError."""
    if model.versions.filter(number=number).exists():
        raise NumberTakenError
    while model.newest_number < number:
        model.newest_number = take_number(model)
    return number


def _write_lineage(
    job: FineTuningJob, version: ModelVersion, result: dict[str, Any], record: dict[str, Any]
) -> Lineage:
    return Lineage.objects.create(
        version=version,
        job=job,
        dataset_version=job.dataset_version,
        base_version=job.base_version,
        base_fingerprint=result.get("base_fingerprint", ""),
        method=job.method,
        hyperparameters=_used(job, result),
        template_hash=result.get("template_hash", ""),
        packages=result.get("packages", {}),
        adapter_folder=record["names"].get(ADAPTER, ""),
        **_withdrawn(job),
    )


def _used(job: FineTuningJob, result: dict[str, Any]) -> dict[str, Any]:
    """Those of the run; what was left to the data is what the pre-flight check found in it."""
    found = (job.preflight or {}).get("hyperparameters", {})
    chosen = {name: value for name, value in result.get("hyperparameters", {}).items() if value is not None}
    return {**found, **chosen}


def _withdrawn(job: FineTuningJob) -> dict[str, Any]:
    """Rows that were taken out of the data after the run had read them."""
    spec = job_folder(job.pk) / RUN / SPEC
    redacted_at = job.dataset_version.redacted_at
    if redacted_at is None or not spec.exists() or spec.stat().st_mtime > redacted_at.timestamp():
        return {}
    return {"withdrawn_at": timezone.now(), "withdrawn_rows": job.dataset_version.redacted_rows}


def _context_window(folder: Path) -> int | None:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return None
    window = config.get("max_position_embeddings") or config.get("n_positions")
    return window if isinstance(window, int) and window > 0 else None
