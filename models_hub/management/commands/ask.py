"""`manage.py ask "TEXT"`: one question from the terminal, answered as it is written. Nothing is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from chat.replies.prompt import reply_options, with_own_system_prompt
from config.app_settings import get_settings
from models_hub import clients
from models_hub.base import ModelHubError, PromptMessage, Role, TextDelta
from models_hub.services import get_model_config
from models_hub.targets import ModelTarget


class Command(BaseCommand):
    help = "Ask a model one question and stream its answer to standard output."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("text")
        parser.add_argument("--model", metavar="SLUG", default="", help="also slug@3 or slug@alias")

    def handle(self, *args: Any, **options: Any) -> None:
        text = options["text"]
        limit = get_settings().max_message_chars
        if not text.strip() or len(text) > limit:
            raise CommandError(f"The question must have 1 to {limit} characters.")
        try:
            target = get_model_config(options["model"] or get_settings().default_model)
            asyncio.run(answer(target, text, self.write))
        except ModelHubError as error:
            raise CommandError(error.message) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped.") from None
        self.write("\n")

    def write(self, text: str) -> None:
        self.stdout.write(text, ending="")
        self.stdout.flush()


async def answer(target: ModelTarget, text: str, write: Callable[[str], None]) -> None:
    options = reply_options(target.default_options)
    source = clients.open_reply_source(target)
    try:
        prompt = with_own_system_prompt([PromptMessage(Role.USER, text)], target)
        async with aclosing(source.stream(prompt, options=options)) as parts:
            async for part in parts:
                if isinstance(part, TextDelta):
                    write(part.text)
    finally:
        await clients.close_clients()
