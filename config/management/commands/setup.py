"""What an instance needs once its packages are there: folders, tables, static files, models, a first admin."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from accounts import second_factor
from accounts.services import ensure_first_admin
from chat.errors import ChatError
from config.app_settings import LOOPBACK, AppSettings, get_settings
from config.runtime_dir import create_runtime_dir
from config.serve import local_address
from config.static_files import collect_static_files
from models_hub import provider_keys

BAR_WIDTH = 30
# Checking what is there takes about a second: nothing to tell.
BAR_PATIENCE = 3.0
GPU_PROBE = "import sys, torch; sys.exit(not torch.cuda.is_available())"


class Command(BaseCommand):
    help = "Prepare this instance: folders, database, static files, starter models, first admin. Safe to repeat."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        settings = get_settings()
        started = time.monotonic()
        refuse_missing_gpu(settings)
        create_folders(settings)
        self.migrate()
        self.rotate_encryption()
        if collect_static_files():
            self.stdout.write("Static files collected.")
        self.import_models(settings)
        self.show_first_admin(settings)
        if options["verbosity"] > 1:
            self.stdout.write(f"Set up in {time.monotonic() - started:.1f} s.")

    def migrate(self) -> None:
        """Migrating with nothing to do costs a second; looking costs a few milliseconds."""
        try:
            executor = MigrationExecutor(connection)
        except OperationalError as error:
            reason = str(error).strip().splitlines()[0]
            raise CommandError(f"The database of DATABASE_URL cannot be reached: {reason}") from None
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        if plan:
            self.stdout.write(f"Preparing the database ({len(plan)} migrations).")
            call_command("migrate", interactive=False, verbosity=0)

    def rotate_encryption(self) -> None:
        """A start that never comes up because one secret's key is gone would help nobody."""
        for lost in (*provider_keys.rotate_encryption(), *second_factor.rotate_encryption()):
            self.stderr.write(self.style.WARNING(lost))

    def import_models(self, settings: AppSettings) -> None:
        from models_hub.environment_sync import sync_from_environment
        from models_hub.starter import StarterImportError, import_starter_models

        bar = ProgressBar(self.stdout.write, is_terminal=self.stdout.isatty())
        try:
            import_starter_models(settings.model_cache_dir, bar.show)
        except StarterImportError as error:
            # Everything else works without them, and the page says which model is down.
            self.stderr.write(self.style.WARNING(str(error)))
        bar.finish()
        sync_from_environment()
        refuse_unknown_models(settings)

    def show_first_admin(self, settings: AppSettings) -> None:
        try:
            path = ensure_first_admin(settings)
        except ChatError as error:
            raise CommandError(f"DJANGO_SUPERUSER_USERNAME, _EMAIL or _PASSWORD cannot be used: {error}") from None
        if path:
            address = settings.public_url or local_address(settings)
            self.stdout.write(f"First admin: open this link once, and choose a password: {address}{path}")


class ProgressBar:
    """One line that is drawn again on a terminal, a line for each step elsewhere; silent when there is little to do."""

    def __init__(self, write: Callable[..., Any], *, is_terminal: bool, patience: float = BAR_PATIENCE) -> None:
        self._write = write
        self._is_terminal = is_terminal
        self._from = time.monotonic() + patience
        self._shown = ""

    def show(self, message: str, share: float) -> None:
        if message == self._shown or time.monotonic() < self._from:
            return
        self._shown = message
        filled = round(share * BAR_WIDTH)
        line = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {share:4.0%} {message}"
        self._write(f"\r{line:<100}" if self._is_terminal else line, ending="" if self._is_terminal else "\n")

    def finish(self) -> None:
        if self._is_terminal and self._shown:
            self._write("")


def refuse_unknown_models(settings: AppSettings) -> None:
    """A model that is down is no reason not to start; one that nobody has ever heard of is a mistyped name."""
    from models_hub.models import RegisteredModel

    for name, slug in (("DEFAULT_MODEL", settings.default_model), ("FALLBACK_MODEL", settings.fallback_model)):
        bare = slug.rpartition("@")[0] or slug
        if slug and not RegisteredModel.objects.filter(slug__in=(slug, bare)).exists():
            raise ImproperlyConfigured(f"{name} is {slug!r}, and there is no model of that name.")


def refuse_missing_gpu(settings: AppSettings) -> None:
    """As the engine would, at every one of its starts. A process of its own: torch stays out of this one."""
    if settings.use_gpu != "true" or urlsplit(settings.engine_url).hostname not in LOOPBACK:
        return
    if subprocess.run([sys.executable, "-c", GPU_PROBE], capture_output=True, check=False).returncode:
        raise ImproperlyConfigured("USE_GPU is true, but PyTorch sees no GPU here: set it to auto or false.")


def create_folders(settings: AppSettings) -> None:
    create_runtime_dir(settings.runtime_dir)
    for name, folder in (("DATA_DIR", settings.data_dir), ("MODEL_CACHE_DIR", settings.model_cache_dir)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"{name} {folder} cannot be made: {error.strerror}.") from None
    # The database and the generated keys lie here.
    settings.data_dir.chmod(0o700)
