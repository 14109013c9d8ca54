"""Which rows form which step: grouped by length, shuffled by seed, known for any step without running the others."""

from __future__ import annotations

import random
from collections.abc import Sequence

# A group of so many effective batches is sorted by length before it is cut into batches (as in transformers).
GROUPED_BATCHES = 50
MIN_GROUPS = 4


class BatchOrder:
    """The order of `lengths` (tokens of each row). The same arguments give the same order, in any process.

    The rows of a step do not depend on how it is split: 4 batches of 1 and 1 batch of 4 hold the same four rows.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, accumulation_steps: int = 1, seed: int = 0) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._effective = batch_size * accumulation_steps
        self._seed = seed
        self._epoch = -1
        self._steps: list[list[int]] = []

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self._lengths) // self._effective)

    def batches(self, step: int) -> list[list[int]]:
        """The batches of one step (counted from 0 over all epochs): rows of at most `batch_size`, longest first."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._steps = self._order(epoch)
            self._epoch = epoch
        return split_by_length(self._steps[position], self._lengths, batch_size=self._batch_size)

    def longest_batch(self) -> list[int]:
        return self._by_length(range(len(self._lengths)))[: self._batch_size]

    def padded_tokens(self, steps: int) -> int:
        """The tokens the model works on in the first `steps` steps, padding included; epochs are taken to be alike."""
        first_epoch = [self._padded(step) for step in range(min(steps, self.steps_per_epoch))]
        return round(sum(first_epoch) * steps / len(first_epoch)) if first_epoch else 0

    def _padded(self, step: int) -> int:
        return sum(len(batch) * max(self._lengths[row] for row in batch) for batch in self.batches(step))

    def _order(self, epoch: int) -> list[list[int]]:
        source = random.Random(f"{self._seed}:{epoch}")  # noqa: S311 - an order of rows, not a secret
        rows = list(range(len(self._lengths)))
        source.shuffle(rows)
        groups = max(1, min(GROUPED_BATCHES, len(rows) // (self._effective * MIN_GROUPS)))
        size = groups * self._effective
        rows = [row for start in range(0, len(rows), size) for row in self._by_length(rows[start : start + size])]
        steps = [rows[start : start + self._effective] for start in range(0, len(rows), self._effective)]
        source.shuffle(steps)
        return steps

    def _by_length(self, rows: Sequence[int]) -> list[int]:
        return sorted(rows, key=lambda row: -self._lengths[row])


def split_by_length(rows: Sequence[int], lengths: Sequence[int], *, batch_size: int) -> list[list[int]]:
    """The rows as batches of rows of similar length: what evaluation uses for all of its rows."""
    ordered = sorted(rows, key=lambda row: -lengths[row])
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
