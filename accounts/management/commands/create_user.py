"""`create_user NAME --email E --password P [--admin]`: a person who may sign in at once, whatever SIGNUP says."""

from __future__ import annotations

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts import services
from chat.errors import InvalidError


class Command(BaseCommand):
    help = "Create a person who may sign in at once, whatever SIGNUP says."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--email", required=True)
        parser.add_argument("--password", required=True)
        parser.add_argument("--admin", action="store_true", help="may use the administration pages")

    def handle(self, *, name: str, email: str, password: str, admin: bool, **options: object) -> None:
        if not password:
            raise CommandError("--password must not be empty.")
        try:
            # Whoever runs this decides about the password: the pages' rules about its strength do not apply.
            user = services.create_user(name, email=email, password=password, is_admin=admin, check=False)
        except InvalidError as error:
            field, sentence = next(iter(error.fields.items()))
            raise CommandError(f"{field}: {sentence}") from None
        self.stdout.write(f"Created {'admin' if admin else 'user'} {user.username}.")
