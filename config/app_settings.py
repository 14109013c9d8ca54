"""The typed view of Dialoop's own settings that the rest of the code reads. Filled in `config/settings.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

LOOPBACK = {"127.0.0.1", "localhost", "::1"}  # addresses that only this machine reaches


@dataclass(frozen=True, kw_only=True)
class AppSettings:
    data_dir: Path
    model_cache_dir: Path
    runtime_dir: Path
    host: str
    port: int
    public_url: str
    redis_url: str
    redis_is_embedded: bool
    encryption_keys: tuple[str, ...]
    openai_api_key: str
    openai_base_url: str
    openai_models: tuple[str, ...]
    huggingface_api_token: str
    huggingface_models: tuple[str, ...]
    default_model: str
    fallback_model: str
    context_messages: int
    max_message_chars: int
    max_new_tokens: int
    temperature: float
    temperature_is_set: bool
    request_timeout: float
    max_retries: int
    messages_per_minute: int
    use_gpu: str
    engine_url: str
    engine_api_key: str
    engine_memory_mb: int
    engine_max_batch: int
    training_workers: int
    training_processes: int
    signup: str
    superuser_username: str
    superuser_email: str
    superuser_password: str


def get_settings() -> AppSettings:
    """Dialoop's settings, read from the environment once when Django started."""
    return settings.DIALOOP
