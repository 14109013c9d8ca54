"""In which number format a run computes: bf16 autocast where a measurement shows that it is faster, else float32."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

ROUNDS = 2


@dataclass(frozen=True)
class Precision:
    """`name` is float32 or bfloat16: the format of matrix products. Trained weights and losses stay in float32."""

    name: str
    device: str

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.name == "bfloat16")


def choose_device(use_gpu: str = "auto") -> str:
    """`use_gpu` is auto, true or false. Raises `ValueError` when a GPU was asked for and is not there."""
    has_gpu = torch.cuda.is_available()
    if use_gpu == "true" and not has_gpu:
        raise ValueError("A GPU was asked for, but PyTorch sees no CUDA device here.")
    return "cuda" if has_gpu and use_gpu != "false" else "cpu"


def choose_precision(asked: str, *, device: str, work: Callable[[], None]) -> Precision:
    """`work` does a forward and a backward pass of a typical batch; with `auto` it is timed in both formats."""
    if asked != "auto":
        return Precision(asked, device)
    plain, half = Precision("float32", device), Precision("bfloat16", device)
    if device == "cuda":
        return half if torch.cuda.is_bf16_supported() else plain
    return half if _seconds(half, work) < _seconds(plain, work) else plain


def _seconds(precision: Precision, work: Callable[[], None]) -> float:
    """The best of a few rounds in seconds of this process's own work: chat beside it must not decide."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        with precision.autocast():
            work()
        best = min(best, time.process_time() - started)
    return best
