"""What the three client scripts in `tests/` do when they are run directly: ask what is configured, and tell."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from django.db import DatabaseError

from models_hub import clients, selectors
from models_hub.base import (
    Finished,
    Labels,
    ModelHubError,
    PromptMessage,
    ReasoningDelta,
    ReplyOptions,
    Role,
    TextDelta,
)
from models_hub.services import get_model_config
from models_hub.targets import ModelTarget

NOT_CONFIGURED = 2


def run(kind: str, tasks: Sequence[str], *, question: str, how_to_configure: str) -> int:
    """Check every configured model of this kind and ask the first that answers. Returns the exit status."""
    try:
        models = selectors.permitted_models(user=None).filter(connection__kind=kind, task__in=tasks)
        slugs = list(models.values_list("slug", flat=True))
    except DatabaseError:
        print("There is no database yet: run `python manage.py setup` first.")
        return NOT_CONFIGURED
    if not slugs:
        print(f"Not configured: {how_to_configure}")
        return NOT_CONFIGURED
    targets = [target for target in map(_resolve, slugs) if target is not None]
    return asyncio.run(_check_and_ask(targets, question)) if targets else 1


def _resolve(slug: str) -> ModelTarget | None:
    try:
        return get_model_config(slug)
    except ModelHubError as error:
        print(f"down  {slug}: {error.message} [{error.code}]")
        return None


async def _check_and_ask(targets: list[ModelTarget], question: str) -> int:
    try:
        working = [target for target in targets if await _check(target)]
        if working:
            await _ask(working[0], question)
        return 0 if working == targets else 1
    except ModelHubError as error:
        print(f"\nfailed: {error.message} [{error.code}] {error.detail}")
        return 1
    finally:
        await clients.close_clients()


async def _check(target: ModelTarget) -> bool:
    try:
        await clients.open_for_check(target).check()
    except ModelHubError as error:
        print(f"down  {target.slug}: {error.message} [{error.code}] {error.detail}")
        return False
    print(f"ok    {target.slug}")
    return True


async def _ask(target: ModelTarget, question: str) -> None:
    print(f"\n{question}\n{target.slug}: ", end="", flush=True)
    messages = [PromptMessage(Role.USER, question)]
    source = clients.open_reply_source(target)
    async with aclosing(source.stream(messages, options=ReplyOptions(max_new_tokens=64))) as parts:
        async for part in parts:
            _show(part)


def _show(part: object) -> None:
    match part:
        case TextDelta(text) | ReasoningDelta(text):
            print(text, end="", flush=True)
        case Labels(labels):
            print("".join(f"\n  {label.score:6.1%} {label.label}" for label in labels))
        case Finished(reason, usage):
            tokens = f"{usage.prompt_tokens} + {usage.completion_tokens} tokens" if usage else "tokens not told"
            print(f"\n({reason}, {tokens})")
