"""Reads the events of a streamed chat completion into reply parts. No network here."""

from __future__ import annotations

import json
from collections.abc import Sequence

from models_hub.base import (
    Finished,
    FinishReason,
    ModelHubError,
    ProviderBadResponseError,
    ReasoningDelta,
    ReplyPart,
    TextDelta,
    Usage,
)
from models_hub.clients.counts import read_usage
from models_hub.clients.errors import error_from_answer
from models_hub.clients.thinking import ThinkSplitter
from models_hub.targets import ModelTarget

WrittenPart = TextDelta | ReasoningDelta

FINISH_REASONS = {
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "cancelled": FinishReason.CANCELLED,
}


class AnswerReader:
    """One streamed answer. `has_finished` once the finish reason is known, `is_done` once nothing more can come."""

    def __init__(self, target: ModelTarget, *, is_continuation: bool = False) -> None:
        self._target = target
        self._thinking = ThinkSplitter(is_continuation=is_continuation)
        self._finish_reason: FinishReason | None = None
        self.usage: Usage | None = None
        self._has_text = is_continuation
        self._thoughts: list[str] = []
        self._carry = ""
        self._fault: ModelHubError | None = None
        self.is_done = False

    @property
    def has_finished(self) -> bool:
        return self._finish_reason is not None

    def read(self, events: Sequence[bytes]) -> list[WrittenPart]:
        """The parts in these events, neighbours of a kind joined.

        A fault ends the answer and is raised by `finish`: the words before it, perhaps in the same packet, come first.
        """
        parts: list[WrittenPart] = []
        for event in events:
            if event == b"[DONE]":
                self.is_done = True
                break
            try:
                self._read_event(event, parts)
            except ModelHubError as error:
                self._fault, self.is_done = error, True
                break
        return self._joined(parts)

    def finish(self) -> list[ReplyPart]:
        """The end of the answer. Raises what went wrong, or ProviderBadResponseError if nobody said that it ended."""
        if self._fault is not None:
            raise self._fault
        if self._finish_reason is None:
            raise ProviderBadResponseError(f"The answer of {self._target.name} ended before it was finished.")
        parts = self._joined(self._thinking.finish())
        if self._carry:
            parts.append(TextDelta("\ufffd"))
        if not self._has_text and self._thoughts:
            # A model that only thought has said that much: better its thoughts than an empty answer.
            parts.append(TextDelta("".join(self._thoughts)))
        return [*parts, Finished(self._finish_reason, self.usage)]

    def _read_event(self, event: bytes, parts: list[WrittenPart]) -> None:
        try:
            fields = json.loads(event)
            if not fields.get("error"):
                return self._read_fields(fields, parts)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            message = f"The provider of {self._target.name} sent an answer that makes no sense."
            raise ProviderBadResponseError(message, detail=type(error).__name__) from error
        raise error_from_answer(self._target, None, fields["error"])

    def _read_fields(self, fields: dict, parts: list[WrittenPart]) -> None:
        for choice in fields.get("choices") or ():
            delta = choice.get("delta") or {}
            reasoning = delta.get("reasoning_content") or delta.get("reasoning")
            if reasoning and isinstance(reasoning, str):
                parts.append(ReasoningDelta(reasoning))
            content = delta.get("content")
            if content and not isinstance(content, str):
                raise TypeError("content is no text")
            if content:
                parts.extend(self._thinking.feed(content))
            if choice.get("finish_reason"):
                self._finish(choice["finish_reason"])
        self._count(fields.get("usage"))

    def _count(self, usage: object) -> None:
        try:
            self.usage = read_usage(usage) or self.usage
        except ProviderBadResponseError:
            if not self.has_finished:  # the answer itself is whole, and no count takes it back
                raise

    def _finish(self, reason: str) -> None:
        if reason == "error":
            raise ProviderBadResponseError(f"The provider of {self._target.name} reported an error.")
        self._finish_reason = FINISH_REASONS.get(reason.lower(), FinishReason.STOP)

    def _joined(self, parts: Sequence[WrittenPart]) -> list[WrittenPart]:
        joined: list[WrittenPart] = []
        for part in parts:
            if joined and type(joined[-1]) is type(part):
                joined[-1] = type(part)(joined[-1].text + part.text)
            else:
                joined.append(part)
        return [part for part in map(self._cleaned, joined) if part.text]

    def _cleaned(self, part: WrittenPart) -> WrittenPart:
        text = part.text if part.text.isascii() and not self._carry else self._mended(part.text)
        text = text.replace("\0", "") if "\0" in text else text
        if isinstance(part, ReasoningDelta):
            if not self._has_text:
                self._thoughts.append(text)
        else:
            self._has_text = self._has_text or bool(text.strip())
        return type(part)(text)

    def _mended(self, text: str) -> str:
        """Half a surrogate pair waits for its other half; one without is replaced, or it would break the database."""
        text, self._carry = self._carry + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._carry = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
