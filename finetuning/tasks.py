"""Background work of datasets and trainings. When and in which queue: the settings say."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task
from celery.signals import worker_shutting_down

from finetuning import datasets, schedules
from finetuning.conversations import withdrawal
from finetuning.datasets import bulk_review, care
from finetuning.jobs import shutdown, tending, work


@worker_shutting_down.connect
def stop_at_a_checkpoint(**arguments: object) -> None:
    """What runs here is given back to the queue before the worker ends."""
    shutdown.request()


@shared_task
def validate_job(job_id: str) -> None:
    work.validate(UUID(job_id))


@shared_task
def run_job(job_id: str) -> None:
    work.run(UUID(job_id))


@shared_task
def tend_jobs() -> None:
    tending.tend()


@shared_task
def clean_up_jobs() -> None:
    tending.clean_up()


@shared_task
def check_schedule(schedule_id: int) -> None:
    schedules.check_schedule(schedule_id)


@shared_task
def run_import(import_id: str) -> None:
    datasets.run_import(UUID(import_id))


@shared_task
def freeze_version(version_id: str) -> None:
    datasets.freeze_version(int(version_id))


@shared_task
def tend_datasets() -> None:
    care.tend()


@shared_task
def clean_up_datasets() -> None:
    care.clean_up()


@shared_task
def decide_about_rows(
    dataset_id: int, action: str, filters: dict[str, str], up_to: int, user_id: int, label: str = ""
) -> None:
    bulk_review.decide_now(dataset_id, action=action, filters=filters, up_to=up_to, user_id=user_id, label=label)


@shared_task
def clear_withdrawn() -> None:
    withdrawal.clear_withdrawn()
