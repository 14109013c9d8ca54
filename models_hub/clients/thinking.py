"""Splits `<think>...</think>` at the start of an answer from the answer, however the chunks cut the tags."""

from __future__ import annotations

from models_hub.base import ReasoningDelta, TextDelta

OPEN, CLOSE = "<think>", "</think>"


class ThinkSplitter:
    """Only a tag that opens the answer counts: further in, it is something the model writes about."""

    def __init__(self, *, is_continuation: bool = False) -> None:
        self._state = self._answer if is_continuation else self._start
        self._held = ""

    def feed(self, text: str) -> list[TextDelta | ReasoningDelta]:
        return self._state(text)

    def finish(self) -> list[TextDelta | ReasoningDelta]:
        """What was held back because it might have become a tag."""
        held, self._held = self._held, ""
        if not held or self._state == self._after:
            return []
        return [ReasoningDelta(held) if self._state == self._thinking else TextDelta(held)]

    def _start(self, text: str) -> list[TextDelta | ReasoningDelta]:
        self._held += text
        beginning = self._held.lstrip()
        if beginning.startswith(OPEN):
            self._held, self._state = "", self._before
            return self._before(beginning[len(OPEN) :])
        if OPEN.startswith(beginning):
            return []
        held, self._held, self._state = self._held, "", self._answer
        return [TextDelta(held)]

    def _before(self, text: str) -> list[TextDelta | ReasoningDelta]:
        thought = text.lstrip("\n")
        if not thought:
            return []
        self._state = self._thinking
        return self._thinking(thought)

    def _thinking(self, text: str) -> list[TextDelta | ReasoningDelta]:
        text, self._held = self._held + text, ""
        thought, found, answer = text.partition(CLOSE)
        if found:
            self._state = self._after
            return [*([ReasoningDelta(thought)] if thought else []), *self._after(answer)]
        hold = _length_of_partial(text, CLOSE)
        thought, self._held = text[: len(text) - hold], text[len(text) - hold :]
        return [ReasoningDelta(thought)] if thought else []

    def _after(self, text: str) -> list[TextDelta | ReasoningDelta]:
        """The blank lines between the thinking and the answer belong to neither."""
        answer = text.lstrip()
        if not answer:
            return []
        self._state = self._answer
        return [TextDelta(answer)]

    def _answer(self, text: str) -> list[TextDelta | ReasoningDelta]:
        return [TextDelta(text)]


def _length_of_partial(text: str, tag: str) -> int:
    """How many characters at the end of the text could be the beginning of the tag."""
    for length in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:length]):
            return length
    return 0
