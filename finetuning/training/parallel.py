"""Several processes that train one model: each takes its share of a step's batches, and the gradients are summed.

They are started by `accelerate launch`. A run of two equals one of a single process that accumulates twice as long.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from accelerate import PartialState
from torch import distributed, nn

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """What all of them must do together, they do in the same order; a single process does nothing of it."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """It alone writes: the log, the checkpoints, the result."""
        return self.rank == 0

    def share(self, batches: list[Value]) -> list[Value | None]:
        """This process's batches, filled up with None: all processes have the same number."""
        longest = -(-len(batches) // self.count)
        own = batches[self.rank :: self.count]
        return [*own, *[None] * (longest - len(own))]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:  # no batch in this step
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)

    def sum(self, value: float, *, device: str) -> float:
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=device)
        distributed.all_reduce(total)
        return total.item()

    def any(self, is_so: bool, *, device: str) -> bool:
        return is_so if self.count == 1 else self.sum(float(is_so), device=device) > 0

    def agree(self, value: Value) -> Value:
        """What the main process has: measured times and rounding differ from one to the other."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]


def join(*, use_gpu: str) -> Processes:
    """To be called once by each process that `accelerate launch` has started. Waits until all are there."""
    PartialState(cpu=use_gpu == "false")
    return current()


def current() -> Processes:
    if distributed.is_available() and distributed.is_initialized():
        return Processes(distributed.get_rank(), distributed.get_world_size())
    return Processes()


def leave() -> None:
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
