"""Which messages go along with a question: the last few, and no more than the model's window holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models_hub.base import ChatModel, ContextLengthExceededError, PromptMessage, Role

# UTF-8 bytes a token: what English text comes to, and on the careful side for most other scripts.
BYTES_PER_TOKEN = 3.5
TOKENS_PER_MESSAGE = 5
SURELY = 4  # so much more than the window is too long, however wrong the estimate
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

    Raises ContextLengthExceededError when the question alone is too long; of what is only estimated, and not beyond
    doubt, the provider judges. An unknown window fits everything.
    """
    if window is None:
        return FittedPrompt(tuple(messages), 0)
    budget = window - min(max_new_tokens, int(window * LARGEST_ANSWER_SHARE))
    system, turns = _split(messages)
    left_out = 0
    while True:
        counted = await model.count_tokens([*system, *turns])
        tokens = estimate_tokens([*system, *turns]) if counted is None else counted
        if tokens <= budget:
            break
        dropped = _oldest_turn(turns, (tokens - budget) / max(tokens, 1))
        if not dropped:
            if tokens >= (window if counted is not None else window * SURELY):
                raise _too_long(tokens, window)
            break
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


def _too_long(tokens: int, window: int) -> ContextLengthExceededError:
    return ContextLengthExceededError(
        f"The message has about {tokens} tokens, and this model reads at most {window}. Shorten it, "
        "or pick a model with a larger context window.",
        context_window=window,
        prompt_tokens=tokens,
    )
