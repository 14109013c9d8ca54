"""Targets and readers that the tests of the models hub share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from itertools import count

from models_hub.base import Finished, Labels, PromptMessage, ReasoningDelta, ReplyOptions, Role, TextDelta
from models_hub.targets import CHAT, ENGINE, OPENAI_CHAT, ModelTarget
from tests.support.upstream import Upstream

QUESTION = [PromptMessage(Role.USER, "What is a loop?")]
OPTIONS = ReplyOptions()
_connection_ids = count(1000)


def make_target(upstream: Upstream | None = None, model: str = "scripted", **values) -> ModelTarget:
    """A target at the scripted upstream; its model's name is the script. Each has a connection of its own."""
    kind = values.get("kind", OPENAI_CHAT)
    base_url = "" if upstream is None else upstream.url if kind == ENGINE else upstream.base_url
    target = ModelTarget(
        slug="scripted",
        name="Scripted",
        task=CHAT,
        kind=kind,
        base_url=base_url,
        api_key="key-of-the-tests",
        provider_model=model,
        version_id=1,
        version_number=1,
        context_window=None,
        default_options={},
        learned_parameters={},
        connection_id=next(_connection_ids),
    )
    return replace(target, **values)


class Answer:
    """What a stream yielded, taken apart."""

    def __init__(self) -> None:
        self.parts: list = []

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, TextDelta))

    @property
    def reasoning(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, ReasoningDelta))

    @property
    def labels(self) -> tuple | None:
        return next((part.labels for part in self.parts if isinstance(part, Labels)), None)

    @property
    def finished(self) -> Finished:
        [last] = [part for part in self.parts if isinstance(part, Finished)]
        assert self.parts[-1] is last, "Finished is the last part, once"
        return last


async def read(stream: AsyncIterator, into: Answer | None = None) -> Answer:
    """Read a stream to its end; `into` keeps what had come when it raises."""
    answer = into or Answer()
    async with aclosing(stream) as parts:
        async for part in parts:
            answer.parts.append(part)
    return answer
