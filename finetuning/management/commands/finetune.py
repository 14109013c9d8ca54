"""`manage.py finetune`: makes a fine-tuning job; with `--wait` it sees it through, doing itself what no worker does."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from chat.errors import ChatError
from finetuning import jobs
from finetuning.datasets import freeze_version
from finetuning.jobs import dispatch, shutdown, tending, work
from finetuning.jobs.bases import METHOD_OF_KIND
from finetuning.jobs.leases import waiting_jobs
from finetuning.models import Dataset, DatasetVersion, FineTuningJob
from finetuning.models.jobs import METHODS

LOOK_SECONDS = 0.5
STEP_SECONDS = 5.0
STOPPING = (signal.SIGINT, signal.SIGTERM)
Status = FineTuningJob.Status


class Command(BaseCommand):
    help = "Fine-tune a model on a dataset. Prints the job's id and, with --wait, its final state."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--base", required=True, metavar="SLUG", help="also slug@3 or slug@alias")
        parser.add_argument("--dataset", required=True, metavar="N", help="its name or its id")
        parser.add_argument("--method", default="", choices=[name for name, _ in METHODS])
        parser.add_argument("--name", default="", metavar="SLUG", help="the model that gets the new version")
        parser.add_argument("--wait", action="store_true", help="until it has ended; without a worker, train here")
        parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a hyperparameter")
        parser.add_argument("--system-prompt", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            dataset = find_the_dataset(options["dataset"])
            job = jobs.create_job(
                user=None,
                method=options["method"] or method_for(dataset),
                base=options["base"],
                dataset=dataset,
                target=options["name"],
                system_prompt=options["system_prompt"],
                hyperparameters=dict(parse_setting(text) for text in options["set"]),
            )
        except ChatError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"job {job.pk}")
        self.stdout.write(f"dataset version {job.dataset_version}")
        if options["wait"]:
            job = self.wait(job)
        self.stdout.write(job.status + (f" {job.result_version}" if job.result_version else ""))
        if job.status in (Status.FAILED, Status.CANCELLED):
            raise CommandError(f"{job.error_message or 'The job was cancelled.'} [{job.error_code or 'cancelled'}]")

    def wait(self, job: FineTuningJob) -> FineTuningJob:
        """Ctrl-C stops at a checkpoint: the job goes back to the queue, where a worker finds it."""
        before = {number: signal.signal(number, lambda *_: shutdown.request()) for number in STOPPING}
        progress, helper = Progress(self.stderr.write), None
        try:
            while not (job := jobs.get_job(job.pk, user=None)).has_ended:
                progress.show(job)
                if shutdown.is_requested():
                    break
                if helper is None or not helper.is_alive():
                    helper = help_along(job)
                time.sleep(LOOK_SECONDS)
            if helper is not None:
                helper.join()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        job = jobs.get_job(job.pk, user=None)
        progress.show(job)
        if not job.has_ended:
            raise CommandError(f"Stopped. The job {job.pk} is {job.status}; a worker goes on with it.")
        return job


class Progress:
    """What is new in the job's log, and now and then where it is."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._seen = 0
        self._shown_at = 0.0

    def show(self, job: FineTuningJob) -> None:
        for event in jobs.list_events(job, after=self._seen, limit=500):
            self._seen = event.pk
            if event.level != "debug" and event.message:
                self._write(event.message)
        if job.phase == "training" and time.monotonic() - self._shown_at >= STEP_SECONDS:
            self._shown_at = time.monotonic()
            metric = job.metrics.filter(step=job.step).first()
            loss = f"  loss {metric.loss:.4f}" if metric and metric.loss is not None else ""
            left = f"  about {job.eta_seconds:.0f} s left" if job.eta_seconds is not None else ""
            self._write(f"step {job.step} of {job.total_steps}{loss}{left}")


def help_along(job: FineTuningJob) -> threading.Thread | None:
    """Does what no worker is there to do, in a thread: the first in the queue, as a worker would."""
    if job.status == Status.VALIDATING_FILES and not dispatch.has_worker("default"):
        return _start(_check_data, job)
    if job.status in (Status.QUEUED, Status.RUNNING) and not dispatch.has_worker("training"):
        return _start(_train_next, job)
    return None


def _start(target: Callable[[FineTuningJob], None], job: FineTuningJob) -> threading.Thread:
    def run() -> None:
        try:
            tending.tend()
            target(job)
        finally:
            connection.close()

    thread = threading.Thread(target=run, name="finetune")
    thread.start()
    return thread


def _check_data(job: FineTuningJob) -> None:
    if job.dataset_version.status == DatasetVersion.Status.FREEZING:
        freeze_version(job.dataset_version_id)
    work.validate(job.pk)


def _train_next(job: FineTuningJob) -> None:
    following = waiting_jobs().values_list("pk", flat=True).first()
    if following is not None:
        work.run(following)


def find_the_dataset(name: str) -> Dataset:
    """By its name, or else by its id. Raises CommandError."""
    there = Dataset.objects.filter(deleted_at=None)
    found = there.filter(name=name).first()
    if found is None and name.isascii() and name.isdigit():
        found = there.filter(pk=min(int(name), 2**63 - 1)).first()
    if found is None:
        raise CommandError(f"There is no dataset {name!r}.")
    return found


def method_for(dataset: Dataset) -> str:
    """Raises CommandError for a dataset that is still empty."""
    if not dataset.kind:
        raise CommandError(f"{dataset.name} is empty.")
    return METHOD_OF_KIND[Dataset.Kind(dataset.kind)].value


def parse_setting(text: str) -> tuple[str, Any]:
    """`lora_r=8`: a number, true, false, null or a text. Raises CommandError."""
    name, is_one, value = text.partition("=")
    if not is_one or not name.strip():
        raise CommandError(f"{text!r} is not KEY=VALUE, as in learning_rate=0.0002.")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value
