"""Gives classifiers and mask fillers the interface of a chat model, so that one can talk to them in a conversation."""

from __future__ import annotations

import string
from collections.abc import AsyncIterator, Sequence

from models_hub.base import (
    Finished,
    FinishReason,
    Labels,
    LabelScore,
    PromptMessage,
    ReplyOptions,
    ReplyPart,
    Role,
    TextDelta,
    Usage,
)
from models_hub.clients.distilbert_classifier import DistilBertClassifier, DistilBertMaskFiller

MASK = "[MASK]"
CANDIDATES = 5
# A masked-token model was not made to write on: beyond a few words it only repeats itself.
MAX_CONTINUATION = 8


class ClassifierReply:
    def __init__(self, classifier: DistilBertClassifier) -> None:
        self.target = classifier.target
        self._classifier = classifier

    async def stream(self, messages: Sequence[PromptMessage], *, options: ReplyOptions) -> AsyncIterator[ReplyPart]:
        [scores], usage = await self._classifier.classify_with_usage([last_question(messages)])
        yield Labels(tuple(scores))
        yield TextDelta(_sentence(scores))
        yield Finished(FinishReason.STOP, usage)

    async def count_tokens(self, messages: Sequence[PromptMessage]) -> int | None:
        return None

    async def check(self) -> None:
        await self._classifier.check()


class MaskFillerReply:
    def __init__(self, filler: DistilBertMaskFiller) -> None:
        self.target = filler.target
        self._filler = filler

    async def stream(self, messages: Sequence[PromptMessage], *, options: ReplyOptions) -> AsyncIterator[ReplyPart]:
        text = last_question(messages)
        parts = self._fill(text) if MASK in text else self._continue(text, options)
        async for part in parts:
            yield part

    async def count_tokens(self, messages: Sequence[PromptMessage]) -> int | None:
        return None

    async def check(self) -> None:
        await self._filler.check()

    async def _fill(self, text: str) -> AsyncIterator[ReplyPart]:
        masks, usage = await self._filler.fill_mask_with_usage(text, top_k=CANDIDATES)
        for candidates in masks:
            text = text.replace(MASK, candidates[0].label, 1)
        yield Labels(tuple(masks[0]))
        words = ", ".join(_quoted(candidates[0]) for candidates in masks)
        yield TextDelta(f"{words}: {text}")
        yield Finished(FinishReason.STOP, usage)

    async def _continue(self, text: str, options: ReplyOptions) -> AsyncIterator[ReplyPart]:
        """Guess the word after the text, again and again. The full stop makes the model expect a word before it."""
        written, tokens = "", 0
        for _ in range(min(options.max_new_tokens, MAX_CONTINUATION)):
            filled, usage = await self._filler.fill_mask_with_usage(f"{text}{written} {MASK}.", top_k=CANDIDATES)
            word = _next_word(filled[-1], after=written)
            if not word:
                break
            delta = word[2:] if word.startswith("##") else f" {word}"
            written += delta
            tokens += 1
            yield TextDelta(delta.lstrip() if tokens == 1 else delta)
        if not tokens:
            yield TextDelta("…")
        prompt_tokens = usage.prompt_tokens if usage else 0
        yield Finished(FinishReason.LENGTH if tokens else FinishReason.STOP, Usage(prompt_tokens, tokens))


def last_question(messages: Sequence[PromptMessage]) -> str:
    """What the person said last: these models read one text, not a conversation."""
    return next((message.content for message in reversed(messages) if message.role == Role.USER), "")


def _sentence(scores: Sequence[LabelScore]) -> str:
    others = ", ".join(_quoted(score) for score in scores[1:4])
    also = f", before {others}" if others else ""
    return f"{_quoted(scores[0])}{also}. This model labels texts; it does not hold a conversation."


def _quoted(score: LabelScore) -> str:
    return f"{score.label} ({score.score:.0%})"


def _next_word(candidates: Sequence[LabelScore], *, after: str) -> str:
    """The best candidate that is a word and does not just repeat the last one."""
    last = after.rsplit(" ", 1)[-1]
    for candidate in candidates:
        if candidate.label.strip(string.punctuation) and candidate.label != last:
            return candidate.label
    return ""
