"""Out of memory, explained: which error it is, how much was used, and what to try instead."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from finetuning.training.errors import TrainingMemoryError
from finetuning.training.hyperparameters import Hyperparameters


@contextmanager
def explained(hyperparameters: Hyperparameters, *, is_evaluation: bool = False) -> Iterator[None]:
    """Raises `TrainingMemoryError` in place of what PyTorch raises. `is_evaluation`: nothing in it has gradients."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(hyperparameters, is_evaluation=is_evaluation) from error


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # On CPU PyTorch has no class of its own for it: only the allocator's name in the text tells.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def out_of_memory(hyperparameters: Hyperparameters, *, is_evaluation: bool = False) -> TrainingMemoryError:
    suggestion = hyperparameters.for_less_memory(is_evaluation=is_evaluation)
    advice = ", ".join(f"{name} {value}" for name, value in suggestion.items())
    sentence = f"There was not enough memory for the longest batch{' of an evaluation' if is_evaluation else ''}."
    hint = f" Try {advice}." if advice else " Take a smaller model or a machine with more memory."
    return TrainingMemoryError(sentence + hint, suggestion=suggestion, peak_memory_bytes=peak_memory_bytes())


def peak_memory_bytes() -> int:
    """The most memory this process has had; on a GPU, the most its tensors took."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
