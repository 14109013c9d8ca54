"""What an engine is told when it is built: where models are, what they may use, and which one a name means."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Task(StrEnum):
    CHAT = "chat"
    CLASSIFICATION = "classification"
    FILL_MASK = "fill_mask"


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files are: an absolute folder, a folder under the model cache, or a Hub id at a revision."""

    path_or_hub_id: str
    revision: str = ""
    task: Task = Task.CHAT


# Called in a thread. Returns None for a name it does not know; may raise `ModelNotReadyError` with the reason.
Catalog = Callable[[str], ModelSource | None]
NameList = Callable[[], Iterable[str]]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """`memory_mb` covers weights and key-value caches of all loaded models. `dtype` is auto, float32 or bfloat16."""

    model_cache_dir: Path
    api_key: str
    memory_mb: int = 4096
    max_batch: int = 32
    max_waiting: int = 512
    use_gpu: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    hub_token: str = ""
    default_model: str = ""
    default_max_tokens: int = 512
    cache_tokens_per_request: int = 1024
    prefill_tokens: int = 256
    # After a failed load the same error is given at once for so long, instead of trying again on every request.
    retry_load_after: float = 10.0
