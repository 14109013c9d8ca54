"""What classification and masked-language training share: texts as token ids, padded batches, the run, its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetuning.training.events import Phase
from finetuning.training.labels import choose_max_length
from finetuning.training.loading import BaseModel
from finetuning.training.loop import TrainingResult
from finetuning.training.parallel import current
from finetuning.training.runs import MERGED, Run, RunOptions, run_loop
from finetuning.training.saving import save_model


@dataclass(frozen=True)
class EncodedTexts:
    """`ids[i]` was made of text `rows[i]` and has at most `max_length` tokens; `cut_tokens` says by text what went.

    `left_out` are texts in which nothing is left to learn from.
    """

    ids: list[np.ndarray]
    rows: list[int]
    max_length: int
    cut_tokens: dict[int, int]
    left_out: list[int] = field(default_factory=list)

    @property
    def lengths(self) -> list[int]:
        return [len(ids) for ids in self.ids]


@dataclass(frozen=True, kw_only=True)
class EncoderOutcome:
    """`folders` is empty for a stopped run; `cut` counts training texts longer than `max_length` tokens."""

    result: TrainingResult
    folders: dict[str, Path]
    max_length: int
    cut: int


def train_encoder(run: Run, encoded: EncodedTexts, options: RunOptions, **origin: Any) -> EncoderOutcome:
    """The loop, then the whole model. A stopped run saves none: its head may be as random as in the beginning."""
    result = run_loop(run, options)
    folders = {}
    if result.status != "stopped" and current().is_main:
        options.progress(Phase(name="saving"))
        about = {**run.origin, **origin, "result": result.to_dict()}
        folders = {MERGED: save_model(run.model, run.base, options.folder / MERGED, origin=about)}
    return EncoderOutcome(result=result, folders=folders, max_length=encoded.max_length, cut=len(encoded.cut_tokens))


def encode_texts(base: BaseModel, texts: Sequence[str], *, max_length: int | None) -> EncodedTexts:
    """With the tokenizer's own special tokens; without `max_length` the 99th percentile of the texts' lengths."""
    whole = base.tokenizer(list(texts), add_special_tokens=True, truncation=False, verbose=False)["input_ids"]
    lengths = [len(ids) for ids in whole]
    limit = min(base.context_window, max_length or choose_max_length(lengths, context_window=base.context_window))
    long = [row for row, length in enumerate(lengths) if length > limit]
    # Cut by the tokenizer: it keeps the special token at the end.
    shortened = (
        base.tokenizer([texts[row] for row in long], truncation=True, max_length=limit)["input_ids"] if long else []
    )
    for row, ids in zip(long, shortened, strict=True):
        whole[row] = ids
    return EncodedTexts(
        ids=[np.asarray(ids, dtype=np.int32) for ids in whole],
        rows=list(range(len(whole))),
        max_length=limit,
        cut_tokens={row: lengths[row] - len(whole[row]) for row in long},
    )


def pad(rows: Sequence[np.ndarray], *, pad_token_id: int, device: Any) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` [rows, tokens]; an encoder looks both ways, so padding must be masked."""
    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad_token_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for position, row in enumerate(rows):
        ids[position, : len(row)] = row
        mask[position, : len(row)] = 1
    return {"input_ids": torch.from_numpy(ids).to(device), "attention_mask": torch.from_numpy(mask).to(device)}
