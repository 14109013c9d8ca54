"""`manage.py promote SLUG VERSION --reason R`: what people talk to from now on, by the same gate as the pages."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from chat.errors import ChatError
from finetuning import versions
from finetuning.versions.reports import get_version
from models_hub.base import ModelHubError
from models_hub.models import PRODUCTION
from models_hub.selectors import get_model


class Command(BaseCommand):
    help = "Point an alias of a model, by default production, at one of its versions. Exit status 1 when refused."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", metavar="SLUG")
        parser.add_argument("version", metavar="VERSION", type=int, help="its number")
        parser.add_argument("--reason", required=True, help="kept in the history of the alias")
        parser.add_argument("--alias", default=PRODUCTION)

    def handle(self, *, slug: str, version: int, reason: str, alias: str, **options: Any) -> None:
        try:
            found = get_version(get_model(slug, user=None), version)
            event = versions.promote(found, actor=None, reason=reason, alias=alias)
        except (ChatError, ModelHubError) as error:
            raise CommandError(error.message) from error
        before = event.from_number or "none"
        self.stdout.write(f"{slug}@{alias}: version {event.to_number} (id {found.pk}), before: {before}.")
        self.stdout.write(f"event {event.pk}: {event.reason}")
