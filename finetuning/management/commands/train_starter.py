"""`manage.py train_starter`: teaches the starter encoder sentiment, from a package to a model that answers."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from chat.errors import ChatError
from config.app_settings import get_settings
from finetuning.management.commands import finetune
from finetuning.models import FineTuningJob
from finetuning.samples import starter
from finetuning.samples.sources import SampleError, get_sample, write_sample


class Command(finetune.Command):
    help = "Train the starter sentiment classifier on real sentences, so that distilbert-sentiment can be talked to."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--wait", action="store_true", help="until it has ended; without a worker, train here")
        parser.add_argument("--again", action="store_true", help="also when there is one that answers already")

    def handle(self, *args: Any, **options: Any) -> None:
        answering = starter.find_answering()
        if answering is not None and not options["again"]:
            self.stdout.write(f"{answering} answers already; --again trains another version.")
            return
        try:
            job = starter.find_running() or self._create()
        except (SampleError, ChatError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"job {job.pk}")
        if options["wait"]:
            job = self.wait(job)
            self._report(job)

    def _create(self) -> FineTuningJob:
        written = write_sample(get_sample(starter.SAMPLE), get_settings().data_dir / "samples")
        source = written.sample.source
        self.stdout.write(f"{written.rows:,} sentences from {source.package.file_name} [{source.licence}]")
        version = starter.freeze_sentences(written.path)
        splits = ", ".join(f"{rows:,} {split}" for split, rows in version.counts.items())
        self.stdout.write(f"dataset version {version}: {splits}")
        return starter.create_starter_job(version)

    def _report(self, job: FineTuningJob) -> None:
        """Raises CommandError when it did not succeed."""
        self.stdout.write(job.status + (f" {job.result_version}" if job.result_version else ""))
        if job.status != FineTuningJob.Status.SUCCEEDED or job.result_version is None:
            raise CommandError(f"{job.error_message or 'The job was cancelled.'} [{job.error_code or 'cancelled'}]")
        evaluation = job.evaluations.first()
        if evaluation is not None and evaluation.after:
            rows = sum(line["support"] for line in evaluation.after["per_class"].values())
            majority, accuracy = evaluation.after["majority"], evaluation.after["accuracy"]
            self.stdout.write(
                f"{accuracy:.1%} of {rows:,} held-out sentences right (the commonest label: {majority:.1%})"
            )
        answering = starter.find_answering()
        if answering != job.result_version:
            number = job.result_version.number
            now = f"{answering} still answers" if answering else "nothing answers yet"
            self.stdout.write(f"{now}; `promote distilbert-sentiment {number} --reason ...` changes that")
