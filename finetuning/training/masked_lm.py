"""Masked-language training of an encoder: it gives an encoder without one its head for filling in masked tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModelForMaskedLM

from finetuning.training.batching import split_by_length
from finetuning.training.encoders import EncodedTexts, EncoderOutcome, encode_texts, pad, train_encoder
from finetuning.training.errors import DataError
from finetuning.training.events import Phase
from finetuning.training.hyperparameters import Hyperparameters, Method
from finetuning.training.loading import BaseModel, load_base
from finetuning.training.loop import Evaluation
from finetuning.training.precision import choose_device
from finetuning.training.runs import Run, RunOptions, digest
from finetuning.training.token_loss import only_positions

# How the families of encoders name the first module of their head: these alone may be new.
HEADS = ("vocab_transform", "vocab_layer_norm", "vocab_projector", "cls", "lm_head", "predictions")
FIRST_OF_HEAD = ("vocab_transform", "cls", "lm_head")
MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1


@dataclass(frozen=True)
class MaskedRows:
    """`chosen` [rows, tokens] marks the positions to be guessed, `targets` what stood there."""

    inputs: dict[str, torch.Tensor]
    chosen: torch.Tensor
    targets: torch.Tensor


class MaskedLmObjective:
    """Cross entropy on masked tokens. A row always has the same number of them, other ones each time."""

    def __init__(
        self,
        base: BaseModel,
        rows: Sequence[np.ndarray],
        *,
        held_out: Sequence[np.ndarray],
        hyperparameters: Hyperparameters,
    ) -> None:
        self.lengths = [len(row) for row in rows]
        self.evaluation_tokens = sum(map(len, held_out))
        self._base = base
        self._rows = rows
        self._held_out = held_out
        self._values = hyperparameters
        self._special = np.asarray(base.tokenizer.all_special_ids)

    def prepare(self, check: Callable[[], None]) -> None:
        """There is nothing to prepare."""

    def begin_step(self, batches: Sequence[Sequence[int]], check: Callable[[], None]) -> None:
        """A batch's loss depends on nothing but the batch."""

    def units(self, rows: Sequence[int]) -> int:
        return sum(self._count(self._rows[row]) for row in rows)

    def loss(self, rows: Sequence[int]) -> torch.Tensor:
        """The masks come from PyTorch's seed, which the loop sets anew for every step."""
        seed = int(torch.randint(2**31, ()).item())
        return self._loss(self._mask([self._rows[row] for row in rows], seed=seed))

    def evaluate(self, check: Callable[[], None]) -> Evaluation | None:
        """With the same masks each time, so that two evaluations can be compared."""
        if not self._held_out:
            return None
        lengths = [len(row) for row in self._held_out]
        total = 0.0
        for rows in split_by_length(range(len(lengths)), lengths, batch_size=self._values.per_device_eval_batch_size):
            check()
            batch = self._mask([self._held_out[row] for row in rows], seed=self._values.seed + rows[0])
            total += self._loss(batch).item()
        loss = total / sum(map(self._count, self._held_out))
        return Evaluation({"eval_loss": loss, "perplexity": float(np.exp(min(loss, 50.0)))}, score=loss)

    def _loss(self, batch: MaskedRows) -> torch.Tensor:
        model = self._base.model
        head = next((getattr(model, name) for name in FIRST_OF_HEAD if hasattr(model, name)), None)
        with only_positions(head, batch.chosen):
            logits = model(**batch.inputs).logits
        guesses = logits[0] if isinstance(head, nn.Module) else logits[batch.chosen]
        return functional.cross_entropy(guesses.float(), batch.targets, reduction="sum")

    def _mask(self, rows: Sequence[np.ndarray], *, seed: int) -> MaskedRows:
        """Of the chosen tokens 80 % become the mask, 10 % a random token, 10 % stay, as BERT was trained."""
        source = np.random.default_rng(seed)
        tokenizer = self._base.tokenizer
        changed, chosen = [], np.zeros((len(rows), max(map(len, rows))), dtype=bool)
        for position, row in enumerate(rows):
            places = source.choice(self._maskable(row), size=self._count(row), replace=False)
            chosen[position, places] = True
            fate = source.random(len(places))
            new = row.copy()
            new[places[fate < MASKED_SHARE]] = tokenizer.mask_token_id
            random = places[(fate >= MASKED_SHARE) & (fate < MASKED_SHARE + RANDOM_SHARE)]
            new[random] = source.integers(len(tokenizer), size=len(random))
            changed.append(new)
        inputs = pad(changed, pad_token_id=self._base.pad_token_id, device=self._base.model.device)
        original = pad(rows, pad_token_id=self._base.pad_token_id, device=self._base.model.device)["input_ids"]
        mask = torch.from_numpy(chosen).to(original.device)
        return MaskedRows(inputs, mask, original[mask])

    def _count(self, row: np.ndarray) -> int:
        return max(1, round(self._values.mlm_probability * len(self._maskable(row))))

    def _maskable(self, row: np.ndarray) -> np.ndarray:
        return np.flatnonzero(~np.isin(row, self._special))


@dataclass(frozen=True, kw_only=True)
class PreparedMaskedLm:
    """Ready to be trained, or to be looked at first. Texts without a token that could be masked are left out."""

    run: Run
    encoded: EncodedTexts


def prepare_masked_lm(
    base_folder: Path,
    texts: Sequence[str],
    *,
    options: RunOptions,
    hyperparameters: Hyperparameters,
    held_out: Sequence[str] = (),
) -> PreparedMaskedLm:
    """Load the base and encode all texts. Raises what `errors.py` names."""
    options.progress(Phase(name="loading"))
    torch.manual_seed(hyperparameters.seed)  # the new head's first weights
    base = load_base(base_folder, AutoModelForMaskedLM, device=choose_device(options.use_gpu), fresh=HEADS)
    encoded = encode_maskable(base, texts, max_length=hyperparameters.max_length)
    held = _encode_held_out(base, held_out, max_length=encoded.max_length)
    run = Run(
        method=Method.MASKED_LM,
        model=base.model,
        objective=MaskedLmObjective(base, encoded.ids, held_out=held, hyperparameters=hyperparameters),
        base=base,
        hyperparameters=hyperparameters,
        data=digest([list(texts), list(held_out)]),
    )
    return PreparedMaskedLm(run=run, encoded=encoded)


def train_masked_lm(
    base_folder: Path,
    texts: Sequence[str],
    *,
    options: RunOptions,
    hyperparameters: Hyperparameters,
    held_out: Sequence[str] = (),
) -> EncoderOutcome:
    """Train an encoder (all weights) to fill in masked tokens and save it. Raises what `errors.py` names."""
    prepared = prepare_masked_lm(
        base_folder, texts, options=options, hyperparameters=hyperparameters, held_out=held_out
    )
    return train_encoder(prepared.run, prepared.encoded, options)


def _encode_held_out(base: BaseModel, texts: Sequence[str], *, max_length: int) -> list[np.ndarray]:
    """Of those in which nothing could be masked nothing can be measured, and the run goes on without them."""
    try:
        return encode_maskable(base, texts, max_length=max_length).ids if texts else []
    except DataError:
        return []


def encode_maskable(base: BaseModel, texts: Sequence[str], *, max_length: int | None) -> EncodedTexts:
    if base.tokenizer.mask_token_id is None:
        raise DataError(f"The tokenizer of {base.folder.name} has no mask token.")
    encoded = encode_texts(base, texts, max_length=max_length)
    special = np.asarray(base.tokenizer.all_special_ids)
    kept = [row for row, ids in enumerate(encoded.ids) if not np.isin(ids, special).all()]
    if not kept:
        raise DataError("None of the texts has a token that could be masked.")
    left_out = sorted(set(encoded.rows) - set(kept))
    return replace(encoded, ids=[encoded.ids[row] for row in kept], rows=kept, left_out=left_out)
