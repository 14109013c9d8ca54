"""`revoke_api_keys NAME`: ends all of a person's keys, and the sockets opened with them."""

from __future__ import annotations

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts import services
from accounts.models import ApiKey, User


class Command(BaseCommand):
    help = "End all API keys of a person, and the sockets opened with them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the person's user name")

    def handle(self, *, name: str, **options: object) -> None:
        user = User.objects.filter(username=name).first()
        if user is None:
            raise CommandError(f"There is no user named {name!r}.")
        revoked = services.revoke_keys(ApiKey.objects.filter(user=user, revoked_at=None))
        self.stdout.write(f"Revoked {revoked} key{'' if revoked == 1 else 's'}.")
