"""Which messages go along with a question: the last few, and no more than the model's window holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models_hub.base import ChatModel, ContextLengthExceededError, PromptMessage, Role

# UTF-8 bytes a token: what English text comes to, and on the careful side for most other scripts.
BYTES_PER_TOKEN = 3.5
TOKENS_PER_MESSAGE = 5
# At least half of the window stays for the prompt, however long the answer may become.
LARGEST_ANSWER_SHARE = 0.5


@dataclass(frozen=True)
class FittedPrompt:
    messages: tuple[PromptMessage, ...]
    left_out: int


def estimate_tokens(messages: Sequence[PromptMessage]) -> int:
    """A guess for providers that do not count: too high rather than too low."""
    size = sum(len(message.content.encode()) for message in messages)
    return int(size / BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(messages)


async def fit_prompt(
    model: ChatModel, messages: Sequence[PromptMessage], *, window: int | None, max_new_tokens: int
) -> FittedPrompt:
    """Drop the oldest messages, in turns, until the prompt fits the window. The system prompt and the question stay.

    Raises ContextLengthExceededError when the question alone is too long. An unknown window fits everything.
    """
    if window is None:
        return FittedPrompt(tuple(messages), 0)
    budget = window - min(max_new_tokens, int(window * LARGEST_ANSWER_SHARE))
    system, turns = _split(messages)
    left_out = 0
    while (tokens := await _count(model, [*system, *turns])) > budget:
        dropped = _oldest_turn(turns, (tokens - budget) / max(tokens, 1))
        if not dropped:
            return _only_question(system, turns, left_out, tokens, window)
        turns, left_out = turns[dropped:], left_out + dropped
    return FittedPrompt((*system, *turns), left_out)


def halve(messages: Sequence[PromptMessage]) -> FittedPrompt | None:
    """For a provider that says our estimate was wrong: the newer half, or None when there is nothing left to drop."""
    system, turns = _split(messages)
    dropped = _oldest_turn(turns, 0.5)
    return FittedPrompt((*system, *turns[dropped:]), dropped) if dropped else None


def _split(messages: Sequence[PromptMessage]) -> tuple[list[PromptMessage], list[PromptMessage]]:
    system = [message for message in messages if message.role == Role.SYSTEM]
    return system, [message for message in messages if message.role != Role.SYSTEM]


async def _count(model: ChatModel, messages: Sequence[PromptMessage]) -> int:
    counted = await model.count_tokens(messages)
    return estimate_tokens(messages) if counted is None else counted


def _oldest_turn(turns: Sequence[PromptMessage], share: float) -> int:
    """How many messages to drop so that about `share` of them goes and a question comes first; 0: no more can go.

    Cutting several at once, not one a message, keeps the front of the prompt the same for longer, so that the
    engine's prefix sharing keeps working.
    """
    last_question = max((place for place, turn in enumerate(turns) if turn.role == Role.USER), default=0)
    wanted = max(1, int(len(turns) * share))
    for place in range(wanted, last_question + 1):
        if turns[place].role == Role.USER:
            return place
    return last_question


def _only_question(
    system: Sequence[PromptMessage], turns: Sequence[PromptMessage], left_out: int, tokens: int, window: int
) -> FittedPrompt:
    if tokens >= window:
        raise ContextLengthExceededError(
            f"The message has about {tokens} tokens, and this model reads at most {window}. Shorten it, "
            "or pick a model with a larger context window.",
            context_window=window,
            prompt_tokens=tokens,
        )
    return FittedPrompt((*system, *turns), left_out)
