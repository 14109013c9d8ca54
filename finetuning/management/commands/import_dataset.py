"""`manage.py import_dataset FILE --name N`: a file into a dataset, here and now, with its progress and its report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from chat.errors import ChatError
from finetuning import datasets
from finetuning.models import DatasetImport

SHOWN_PROBLEMS = 10
SHOWN_EVERY = 1.0


class Command(BaseCommand):
    help = "Read a file into a dataset, which is made when there is none of that name. Exit status 1 when it failed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--name", required=True, help="of the dataset")
        parser.add_argument("--format", default="auto", help="auto, or the name of a format (see docs/guides/datasets)")
        parser.add_argument("--review", action="store_true", help="people review the rows before they are trained on")

    def handle(self, *args: Any, **options: Any) -> None:
        self._shown_at = 0.0
        try:
            datasets.check_file(options["file"])  # a slip of the pen leaves no empty dataset behind
            dataset = datasets.find_or_create_dataset(options["name"])
            source_import = datasets.import_file(
                dataset,
                options["file"],
                format_name=options["format"],
                is_approved=not options["review"],
                progress=self._show_progress,
            )
        except ChatError as error:
            raise CommandError(error.message) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped. Nothing of the file is in the dataset.") from None
        self._report(source_import)

    def _show_progress(self, source_import: DatasetImport) -> None:
        if time.monotonic() - self._shown_at >= SHOWN_EVERY:
            self._shown_at = time.monotonic()
            share = source_import.bytes_read / source_import.size if source_import.size else 1.0
            self.stderr.write(f"{share:4.0%}  {source_import.rows_read:,} rows read")

    def _report(self, source_import: DatasetImport) -> None:
        """Raises CommandError when it did not succeed."""
        self.stdout.write(f"dataset {source_import.dataset_id}")
        self.stdout.write(f"import {source_import.pk}")
        self.stdout.write(
            f"{source_import.status}: {source_import.rows_read:,} rows read, {source_import.rows_added:,} added, "
            f"{source_import.duplicates:,} there already, {source_import.rows_refused:,} refused"
        )
        for kind, rows in sorted(source_import.findings.items()):
            self.stdout.write(f"personal data or secrets: {rows:,} rows with {kind}")
        for problem in source_import.problems.all()[:SHOWN_PROBLEMS]:
            self.stdout.write(f"line {problem.line}: {problem.message}")
        if source_import.status != DatasetImport.Status.SUCCEEDED:
            raise CommandError(source_import.error_message or "The import did not succeed.")
