"""`create_api_key NAME`: prints a new key, and nothing else, on standard output."""

from __future__ import annotations

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts import services
from accounts.models import User
from chat.errors import ChatError


class Command(BaseCommand):
    help = "Create an API key for a person and print it. Only its hash is stored."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the person's user name")
        parser.add_argument("--label", default="command line", help="what the key is called in the settings")

    def handle(self, *, name: str, label: str, **options: object) -> None:
        user = User.objects.filter(username=name).first()
        if user is None:
            raise CommandError(f"There is no user named {name!r}.")
        if not user.is_active:
            raise CommandError(f"{name!r} may not sign in, so a key would not work.")
        try:
            _, plain = services.create_key(user, name=label)
        except ChatError as error:
            raise CommandError(error.message) from None
        self.stdout.write(plain)
