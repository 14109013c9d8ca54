"""Signs of life in Valkey: who runs writes a key that outlives a few missed beats, who asks reads it."""

from __future__ import annotations

import logging

import redis

from config.valkey import get_valkey_sync

INTERVAL_SECONDS = 2.0
TTL_SECONDS = 10
WORKER_QUEUES = ("default", "training")

logger = logging.getLogger(__name__)


def heartbeat_key(name: str) -> str:
    return f"dialoop:heartbeat:{name}"


def worker_key(queue: str) -> str:
    return heartbeat_key(f"worker:{queue}")


def write_heartbeat(key: str) -> bool:
    """Say that the caller is alive. A missing Valkey is its own alarm in /readyz, so it must not end the caller."""
    try:
        get_valkey_sync().set(key, "alive", ex=TTL_SECONDS)
    except redis.RedisError as error:
        logger.warning("heartbeat not written", extra={"key": key, "error": type(error).__name__})
        return False
    return True
