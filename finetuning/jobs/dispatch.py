"""Sends the tasks that waiting jobs need. A message is a nudge only: lost or sent twice, the claims decide."""

from __future__ import annotations

import logging

import redis
from django.utils import timezone
from kombu.exceptions import OperationalError

from config.celery import app
from config.heartbeats import worker_key
from config.valkey import get_valkey_sync
from finetuning.jobs.leases import count_free_slots, count_free_validations, waiting_jobs
from finetuning.jobs.states import Status
from finetuning.models import DatasetVersion, FineTuningJob, TrainingQueue

VALIDATE, RUN = "finetuning.tasks.validate_job", "finetuning.tasks.run_job"
# A worker that was away for long must not find thousands of nudges.
EXPIRES = 30

logger = logging.getLogger(__name__)


def send_waiting() -> None:
    """A task for every job that may begin now. Never raises for Valkey: the next tick sends again."""
    for task, job_id in [*_validations(), *_runs()]:
        if not _send(task, job_id):
            return


def has_worker(queue: str) -> bool:
    """Whether a worker of this queue has said within ten seconds that it is alive."""
    try:
        return bool(get_valkey_sync().exists(worker_key(queue)))
    except redis.RedisError:
        return False


def _validations() -> list[tuple[str, str]]:
    """Not those whose dataset version is still being frozen."""
    waiting = FineTuningJob.objects.filter(status=Status.VALIDATING_FILES, owner_token=None)
    waiting = waiting.exclude(dataset_version__status=DatasetVersion.Status.FREEZING)
    oldest = waiting.order_by("-priority", "created_at").values_list("pk", flat=True)[: count_free_validations()]
    return [(VALIDATE, str(pk)) for pk in oldest]


def _runs() -> list[tuple[str, str]]:
    if TrainingQueue.objects.filter(paused_at__isnull=False).exists() or not has_worker("training"):
        return []
    return [(RUN, str(pk)) for pk in waiting_jobs().values_list("pk", flat=True)[: count_free_slots()]]


def _send(task: str, job_id: str) -> bool:
    try:
        app.send_task(task, args=[job_id], expires=EXPIRES, retry=False)
    except (OperationalError, redis.RedisError, OSError) as error:
        logger.warning("a task waits for Valkey (%s)", type(error).__name__, extra={"task": task, "at": timezone.now()})
        return False
    return True
