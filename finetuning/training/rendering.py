"""Renders a conversation with the model's chat template and finds, by prefix differences, which tokens are trained.

Works with any template: no generation markers are needed. The text is tokenized whole, as the engine does it in chat.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import jinja2
import numpy as np

from finetuning.training.errors import DoubleBosError, MissingStopTokenError, TemplateError, TrainedShareError

Message = Mapping[str, Any]
IGNORED = -100
# What a template was seen to raise for messages it does not accept.
TEMPLATE_ERRORS = (jinja2.TemplateError, IndexError, KeyError, TypeError, ValueError)
PROBE = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})


@dataclass(frozen=True, eq=False)
class TrainingSequence:
    """`input_ids` (int32) and, for each token, whether the model is trained to predict it (bool). Same length."""

    input_ids: np.ndarray
    is_trained: np.ndarray

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def trained_tokens(self) -> int:
        return int(self.is_trained.sum())

    @property
    def labels(self) -> np.ndarray:
        return np.where(self.is_trained, self.input_ids, IGNORED)

    def cut_right(self, max_length: int) -> TrainingSequence:
        return TrainingSequence(self.input_ids[:max_length], self.is_trained[:max_length])


class ChatRenderer:
    """Turns conversations into training sequences with one tokenizer, template and system prompt.

    `system_prompt` is put in front of conversations that have no system message of their own. `stop_token_ids` are
    those the model's generation config knows; the special token with which the template ends a turn is found here
    and added: both must be saved with the tuned model. Raises `TemplateError` or `MissingStopTokenError`.
    """

    def __init__(
        self, tokenizer: Any, *, stop_token_ids: Sequence[int] = (), system_prompt: str = "", chat_template: str = ""
    ) -> None:
        if chat_template:
            tokenizer.chat_template = chat_template
        if not tokenizer.chat_template:
            raise TemplateError("This model has no chat template. Give one for its fine-tuning.")
        self.tokenizer = tokenizer
        self.system_prompt = system_prompt
        known = {*stop_token_ids, tokenizer.eos_token_id} - {None}
        self.stop_token_ids = frozenset(known | self._find_turn_end())

    @property
    def template_hash(self) -> str:
        """SHA-256 over template and system prompt: what must be the same in training and in chat."""
        content = json.dumps([self.tokenizer.chat_template, self.system_prompt], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()

    def render(self, messages: Sequence[Message]) -> list[TrainingSequence]:
        """One sequence; or one for each trained turn, where the template rewrites earlier turns (as reasoning ones do).

        Raises `TemplateError`, `MissingStopTokenError` or `TrainedShareError`.
        """
        messages = self.with_system_prompt(messages)
        turns = trained_turns(messages)
        if not turns:
            raise TrainedShareError("No assistant message of this conversation is trained.")
        whole = self._text(messages)
        if all(self._span(messages, turn, whole) for turn in turns):
            return [self._sequence(messages, whole, turns)]
        return [self._sequence(messages[: turn + 1], self._text(messages[: turn + 1]), [turn]) for turn in turns]

    def render_prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids a model is given to answer these messages: exactly what the engine gives it."""
        return self._encode(self._text(self.with_system_prompt(messages), add_generation_prompt=True))

    def pieces(self, sequence: TrainingSequence) -> list[tuple[str, bool]]:
        """The sequence as runs of text with "is trained", to be shown in colour."""
        runs = groupby(zip(sequence.input_ids.tolist(), sequence.is_trained.tolist(), strict=True), key=lambda p: p[1])
        return [(self._decode([token for token, _ in run]), is_trained) for is_trained, run in runs]

    def with_system_prompt(self, messages: Sequence[Message]) -> list[Message]:
        has_own = bool(messages) and messages[0]["role"] == "system"
        own = [{"role": "system", "content": self.system_prompt}] if self.system_prompt and not has_own else []
        return [*own, *messages]

    def _sequence(self, messages: Sequence[Message], text: str, turns: Sequence[int]) -> TrainingSequence:
        spans = [span for turn in turns if (span := self._span(messages, turn, text))]
        if len(spans) < len(turns):
            raise TemplateError(
                "The chat template renders an answer differently from the prompt it is asked with, "
                "so the tokens of the answer cannot be told apart."
            )
        ids, edges = self._tokenize(text, [edge for span in spans for edge in span])
        self._refuse_double_bos(ids)
        is_trained = np.zeros(len(ids), dtype=bool)
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            is_trained[start : self._after_stop_token(ids, start, end)] = True
        is_trained[:1] = False  # nothing stands before it from which it could be predicted
        if not 0 < is_trained.sum() < len(ids):
            raise TrainedShareError(f"{is_trained.sum()} of {len(ids)} tokens would be trained.")
        return TrainingSequence(np.asarray(ids, dtype=np.int32), is_trained)

    def _span(self, messages: Sequence[Message], turn: int, text: str) -> tuple[int, int] | None:
        """Where in `text` the turn's answer starts and ends; None where the template does not render by prefixes."""
        before = self._text(messages[:turn], add_generation_prompt=True)
        through = self._text(messages[: turn + 1])
        fits = text.startswith(through) and through.startswith(before) and len(through) > len(before)
        return (len(before), len(through)) if fits else None

    def _tokenize(self, text: str, edges: list[int]) -> tuple[list[int], list[int]]:
        """The ids of the text, and the token at which each edge (a position in the text) lies."""
        ids = self._encode(text)
        prefixes = [self._encode(text[:edge]) for edge in edges]
        if all(ids[: len(prefix)] == prefix for prefix in prefixes):
            return ids, [len(prefix) for prefix in prefixes]
        # A token reaches over an edge. In chat the prompt is tokenized without the answer, so it is done alike here.
        cuts = [0, *edges, len(text)]
        parts = [self._encode(text[start:end]) for start, end in pairwise(cuts)]
        joined = [token for part in parts for token in part]
        if self._decode(joined) != self._decode(ids):
            raise TemplateError("The tokenizer merges the prompt with the answer, so they cannot be told apart.")
        return joined, np.cumsum([len(part) for part in parts])[:-1].tolist()

    def _after_stop_token(self, ids: list[int], start: int, end: int) -> int:
        """The position after the stop token that ends the turn; white space behind it is not trained."""
        for position in range(end - 1, start - 1, -1):
            if ids[position] in self.stop_token_ids:
                return position + 1
            if self._decode([ids[position]]).strip():
                break
        raise MissingStopTokenError("A trained answer does not end in a stop token: the tuned model would never stop.")

    def _find_turn_end(self) -> set[int]:
        """The special token with which the template ends an answer; a model may stop with it without saying so."""
        span = self._span(PROBE, 1, text := self._text(PROBE))
        if span is None:
            return set()
        ids = self._encode(text[slice(*span)])
        visible = [token for token in ids if self._decode([token]).strip()]
        special = {id for id, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return {visible[-1]} & special if visible else set()

    def _refuse_double_bos(self, ids: list[int]) -> None:
        bos = self.tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            raise DoubleBosError("The conversation would begin with two begin-of-sequence tokens.")

    def _text(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        turns = [{"role": message["role"], "content": message["content"]} for message in messages]
        try:
            return self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except TEMPLATE_ERRORS as error:
            raise TemplateError(f"The model's chat template does not accept this conversation: {error}") from error

    def _encode(self, text: str) -> list[int]:
        # The template has written the special tokens already: adding them again is the double BOS.
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def trained_turns(messages: Sequence[Message]) -> list[int]:
    """The positions of assistant messages whose `weight` is not 0."""
    return [
        position
        for position, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("weight", 1) != 0
    ]
