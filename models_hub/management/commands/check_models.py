"""`manage.py check_models`: asks every connection and every model whether it is there, a line each."""

from __future__ import annotations

import asyncio
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from config.app_settings import get_settings
from models_hub import clients, selectors, services
from models_hub.base import ModelHubError, UnknownModelError
from models_hub.models import Connection
from models_hub.targets import ModelTarget


class Command(BaseCommand):
    help = "Check every connection and model. Exit status 1 when the default model or the fallback is down."

    def handle(self, *args: Any, **options: Any) -> None:
        for connection in Connection.objects.filter(is_enabled=True):
            self.show(f"connection {connection.name}", services.test_connection(connection))
        errors = asyncio.run(check_all(self.resolve_all()))
        for slug, error in errors.items():
            self.show(f"model {slug}", error)
        self.end(errors)

    def resolve_all(self) -> dict[str, ModelTarget | ModelHubError]:
        """Every model as it answers now, and the defaults as they are written: those may name a version."""
        found: dict[str, ModelTarget | ModelHubError] = {}
        slugs = selectors.permitted_models(user=None).values_list("slug", flat=True)
        for address in dict.fromkeys([*slugs, *defaults().values()]):
            try:
                found[address] = selectors.resolve_target(address, user=None)
            except ModelHubError as error:
                found[address] = error
        return found

    def show(self, what: str, error: ModelHubError | None) -> None:
        if error is None:
            self.stdout.write(f"{self.style.SUCCESS('ok')}    {what}")
        else:
            self.stdout.write(f"{self.style.ERROR('down')}  {what}: {error.message} [{error.code}]")

    def end(self, errors: dict[str, ModelHubError | None]) -> None:
        """What people meet who have chosen nothing must work: the default model, and the fallback if there is one."""
        for role, address in defaults().items():
            if isinstance(errors[address], UnknownModelError):
                raise CommandError(f"The {role} {address} is not registered, or switched off.")
            if errors[address] is not None:
                raise CommandError(f"The {role} {address} is down.")


def defaults() -> dict[str, str]:
    settings = get_settings()
    named = {"default model": settings.default_model, "fallback model": settings.fallback_model}
    return {role: address for role, address in named.items() if address}


async def check_all(found: dict[str, ModelTarget | ModelHubError]) -> dict[str, ModelHubError | None]:
    try:
        errors = await asyncio.gather(*(check(target) for target in found.values()))
    finally:
        await clients.close_clients()
    return dict(zip(found, errors, strict=True))


async def check(target: ModelTarget | ModelHubError) -> ModelHubError | None:
    if isinstance(target, ModelHubError):
        return target
    try:
        await clients.open_for_check(target).check()
    except ModelHubError as error:
        return error
    return None
