"""Which device, number format and how many threads the engine uses, chosen once at its start."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import torch

from models_hub.engine.options import EngineOptions

# A decoding step is a thin matrix times a wide one; these are the shapes of a small model with one and 16 streams.
ROWS = (1, 16)
WIDTH = 1536
ROUNDS = 20


@dataclass(frozen=True)
class Device:
    """`chat_dtype` is for chat models; classifiers are small and stay in float32."""

    name: str
    chat_dtype: torch.dtype
    threads: int


def choose_device(options: EngineOptions) -> Device:
    """Raises `ValueError` with a sentence when what was asked for is not there."""
    threads = options.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    has_gpu = torch.cuda.is_available()
    if options.use_gpu == "true" and not has_gpu:
        raise ValueError("USE_GPU is true, but PyTorch sees no CUDA device here.")
    name = "cuda" if has_gpu and options.use_gpu != "false" else "cpu"
    return Device(name, _choose_dtype(options.dtype, name), threads)


def _choose_dtype(asked: str, device: str) -> torch.dtype:
    if asked != "auto":
        dtype = getattr(torch, asked, None)
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"dtype must be auto, float32, bfloat16 or float16, not {asked!r}.")
        return dtype
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if _seconds(torch.bfloat16) < _seconds(torch.float32) else torch.float32


@torch.inference_mode()
def _seconds(dtype: torch.dtype) -> float:
    """The best of several rounds: a busy machine makes rounds slower, never faster."""
    weights = torch.ones(WIDTH, 4 * WIDTH, dtype=dtype)
    inputs = [torch.ones(rows, WIDTH, dtype=dtype) for rows in ROWS]
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for rows in inputs:
            rows @ weights
        best = min(best, time.perf_counter() - started)
    return best
