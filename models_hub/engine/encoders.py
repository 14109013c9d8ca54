"""Loaded encoder models: text classification in micro-batches, and masked-token generation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from models_hub.engine.errors import (
    ContextLengthExceededError,
    EngineStoppingError,
    InvalidRequestError,
    ModelNotReadyError,
)
from models_hub.engine.formats import ClassifyRequest, FillMaskRequest
from models_hub.engine.micro_batch import MicroBatcher

MASK = "[MASK]"


@dataclass(frozen=True)
class LabelScore:
    label: str
    score: float


@dataclass(frozen=True)
class FilledText:
    """For each mask its candidates, best first, the text with the best ones in place, and the tokens that were read."""

    candidates: list[list[LabelScore]]
    text: str
    tokens: int


class LoadedClassifier:
    """A text's scores do not depend on what it was batched with: padding is masked, and the weights are float32."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, context_window: int, max_batch: int
    ) -> None:
        self.context_window = context_window
        self._model = model
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
        self._batcher = MicroBatcher(self._score, max_items=max_batch)

    @property
    def batches(self) -> int:
        return self._batcher.batches

    def start(self) -> None:
        self._batcher.start()

    async def stop(self) -> None:
        self._batcher.stop(EngineStoppingError("The engine is stopping."))

    async def classify(self, request: ClassifyRequest) -> tuple[list[list[LabelScore]], int]:
        """For each text its labels, best first, and the number of tokens read."""
        encoded = await asyncio.to_thread(self._encode, request.texts, truncate=request.truncate)
        scores = await self._batcher.submit(encoded)
        ranked = [self._rank(row)[: request.top_k] for row in scores]
        return ranked, sum(len(ids) for ids in encoded)

    def _encode(self, texts: Sequence[str], *, truncate: bool) -> list[list[int]]:
        with self._lock:
            encoded = [self._tokenizer(text, verbose=False)["input_ids"] for text in texts]
            if truncate:
                limits = {"truncation": True, "max_length": self.context_window}
                encoded = [
                    ids if len(ids) <= self.context_window else self._tokenizer(text, **limits)["input_ids"]
                    for ids, text in zip(encoded, texts, strict=True)
                ]
        _refuse_too_long(encoded, self.context_window)
        return encoded

    @torch.inference_mode()
    def _score(self, encoded: Sequence[list[int]]) -> list[list[float]]:
        width = max(len(ids) for ids in encoded)
        padding = self._tokenizer.pad_token_id or 0
        rows = [ids + [padding] * (width - len(ids)) for ids in encoded]
        masks = [[1] * len(ids) + [0] * (width - len(ids)) for ids in encoded]
        device = self._model.device
        logits = self._model(
            input_ids=torch.tensor(rows, device=device), attention_mask=torch.tensor(masks, device=device)
        ).logits.float()
        if self._model.config.problem_type == "multi_label_classification":
            return logits.sigmoid().tolist()
        # One label is a regression: its value is the answer.
        return (logits if len(self._labels) == 1 else logits.softmax(dim=-1)).tolist()

    def _rank(self, scores: Sequence[float]) -> list[LabelScore]:
        pairs = [LabelScore(label, score) for label, score in zip(self._labels, scores, strict=True)]
        return sorted(pairs, key=lambda pair: -pair.score)


class LoadedMaskFiller:
    """Fills each mask of a text, or continues a text without one by masks that are filled from left to right."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, context_window: int) -> None:
        if tokenizer.mask_token_id is None:
            raise ModelNotReadyError("This model's tokenizer has no mask token.")
        self.context_window = context_window
        self._model = model
        self._tokenizer = tokenizer
        # One text at a time: a continuation is a chain of steps, each waiting for the last.
        self._turn = asyncio.Lock()
        special = torch.zeros(model.config.vocab_size, dtype=torch.bool)
        special[[token for token in tokenizer.all_special_ids if token < model.config.vocab_size]] = True
        special[len(tokenizer) :] = True
        self._never = special

    def start(self) -> None:
        """Nothing runs between requests."""

    async def stop(self) -> None:
        """Nothing runs between requests."""

    async def fill(self, request: FillMaskRequest) -> FilledText:
        async with self._turn:
            return await asyncio.to_thread(self._fill, request)

    def _fill(self, request: FillMaskRequest) -> FilledText:
        text = request.text.replace(MASK, self._tokenizer.mask_token)
        ids = self._tokenizer(text, verbose=False)["input_ids"]
        has_mask = self._tokenizer.mask_token_id in ids
        if not has_mask:
            ids = self._with_masks_at_end(text, request.continue_tokens)
        _refuse_too_long([ids], self.context_window)
        masks = [position for position, token in enumerate(ids) if token == self._tokenizer.mask_token_id]
        read = len(ids)
        candidates = (
            self._fill_at_once(ids, masks, request.top_k) if has_mask else self._fill_in_turn(ids, masks, request.top_k)
        )
        return FilledText(candidates, self._tokenizer.decode(ids, skip_special_tokens=True), read)

    def _with_masks_at_end(self, text: str, count: int) -> list[int]:
        """A full stop after the masks tells the model that words are missing there, not the end of the sentence."""
        return self._tokenizer(f"{text.rstrip()} {' '.join([self._tokenizer.mask_token] * count)}.", verbose=False)[
            "input_ids"
        ]

    def _fill_at_once(self, ids: list[int], masks: list[int], top_k: int) -> list[list[LabelScore]]:
        probabilities = self._probabilities(ids)
        candidates = []
        for position in masks:
            ranked = self._ranked(probabilities[position], top_k)
            candidates.append([self._as_label(token, score) for token, score in ranked])
            ids[position] = ranked[0][0]
        return candidates

    def _fill_in_turn(self, ids: list[int], masks: list[int], top_k: int) -> list[list[LabelScore]]:
        candidates = []
        for position in masks:
            candidates += self._fill_at_once(ids, [position], top_k)
        return candidates

    @torch.inference_mode()
    def _probabilities(self, ids: list[int]) -> torch.Tensor:
        """Shape (tokens, vocabulary). Special tokens are no words, so they are never candidates."""
        logits = self._model(input_ids=torch.tensor([ids], device=self._model.device)).logits[0].float().cpu()
        return logits.masked_fill(self._never, -torch.inf).softmax(dim=-1)

    def _ranked(self, probabilities: torch.Tensor, top_k: int) -> list[tuple[int, float]]:
        best = probabilities.topk(min(top_k, probabilities.numel()))
        return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))

    def _as_label(self, token: int, score: float) -> LabelScore:
        return LabelScore(self._tokenizer.decode([token]).strip(), score)


def _refuse_too_long(encoded: Sequence[list[int]], context_window: int) -> None:
    if not all(encoded):
        raise InvalidRequestError("A text is empty.", param="input")
    longest = max(len(ids) for ids in encoded)
    if longest > context_window:
        raise ContextLengthExceededError(context_window=context_window, prompt_tokens=longest, param="input")
