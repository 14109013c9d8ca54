"""Shows the processes of this instance, or restarts one."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from config.app_settings import get_settings
from config.processes import NotRunningError, list_processes, restart_process


class Command(BaseCommand):
    help = "Show the processes of the running instance; with --restart NAME, restart one of them first."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--restart", metavar="NAME")

    def handle(self, *args: Any, **options: Any) -> None:
        settings = get_settings()
        try:
            if options["restart"]:
                restart_process(settings, options["restart"])
            for process in list_processes(settings):
                self.stdout.write(f"{process.name:<16} {process.state:<9} {process.description}")
        except LookupError:
            raise CommandError(f"There is no process {options['restart']}.") from None
        except NotRunningError:
            raise CommandError(f"Dialoop does not run with DATA_DIR {settings.data_dir}.") from None
