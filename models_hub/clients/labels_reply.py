"""Gives classifiers and mask fillers the interface of a chat model, so that one can talk to them in a conversation."""

from __future__ import annotations

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
    """Fills the masks of a message; a message without one is continued by a few words."""

    def __init__(self, filler: DistilBertMaskFiller) -> None:
        self.target = filler.target
        self._filler = filler

    async def stream(self, messages: Sequence[PromptMessage], *, options: ReplyOptions) -> AsyncIterator[ReplyPart]:
        text = last_question(messages)
        is_continued = MASK not in text
        masks, usage = await self._filler.fill_mask_with_usage(
            text,
            top_k=CANDIDATES,
            continue_tokens=min(options.max_new_tokens, MAX_CONTINUATION) if is_continued else None,
        )
        yield Labels(tuple(masks[0]))
        yield TextDelta(_joined(masks) if is_continued else _filled(text, masks))
        yield Finished(FinishReason.LENGTH if is_continued else FinishReason.STOP, usage)

    async def count_tokens(self, messages: Sequence[PromptMessage]) -> int | None:
        return None

    async def check(self) -> None:
        await self._filler.check()


def last_question(messages: Sequence[PromptMessage]) -> str:
    """What the person said last: these models read one text, not a conversation."""
    return next((message.content for message in reversed(messages) if message.role == Role.USER), "")


def _sentence(scores: Sequence[LabelScore]) -> str:
    others = ", ".join(_quoted(score) for score in scores[1:4])
    also = f", before {others}" if others else ""
    return f"{_quoted(scores[0])}{also}. This model labels texts; it does not hold a conversation."


def _quoted(score: LabelScore) -> str:
    return f"{score.label} ({score.score:.0%})"


def _filled(text: str, masks: Sequence[Sequence[LabelScore]]) -> str:
    for candidates in masks:
        text = text.replace(MASK, candidates[0].label.removeprefix("##"), 1)
    return f"{', '.join(_quoted(candidates[0]) for candidates in masks)}: {text}"


def _joined(masks: Sequence[Sequence[LabelScore]]) -> str:
    """The best word of each mask; a piece that begins with ## goes on with the word before it."""
    return " ".join(candidates[0].label for candidates in masks).replace(" ##", "")
