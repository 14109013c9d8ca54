"""The SDK clients: one per connection and event loop, so that requests share its pool of open connections."""

from __future__ import annotations

import asyncio
import ssl
import weakref
from functools import lru_cache

import httpx2
import openai

from models_hub.targets import ENGINE, ModelTarget

CONNECT_TIMEOUT = 5.0
OPENAI_URL = "https://api.openai.com/v1"
# Every running reply holds a connection; only the idle ones are limited.
LIMITS = httpx2.Limits(max_connections=0, max_keepalive_connections=100, keepalive_expiry=30)

_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, tuple[tuple, openai.AsyncOpenAI]]]
_clients = weakref.WeakKeyDictionary()


def get_client(target: ModelTarget) -> openai.AsyncOpenAI:
    """The shared client of the target's connection. A changed address or key makes a new one; the old one's
    running streams go on."""
    of_loop = _clients.setdefault(asyncio.get_running_loop(), {})
    wanted = (target.base_url, target.api_key)
    known = of_loop.get(target.connection_id)
    if known is None or known[0] != wanted:
        of_loop[target.connection_id] = known = (wanted, _make_client(target))
    return known[1]


async def close_clients() -> None:
    """Close what the running loop opened: at shutdown, and after a command."""
    for _, client in _clients.pop(asyncio.get_running_loop(), {}).values():
        await client.close()


@lru_cache(maxsize=1)
def get_tls_settings() -> ssl.SSLContext:
    """Shared by all clients: each would read all certificates again, which holds up the loop for 50 ms."""
    return httpx2.create_ssl_context()


def _make_client(target: ModelTarget) -> openai.AsyncOpenAI:
    # Silence is measured by the caller, from one piece of an answer to the next: heartbeats are no answer.
    timeout = httpx2.Timeout(None, connect=CONNECT_TIMEOUT)
    # A proxy from the environment must not stand between us and our own engine.
    http_client = openai.DefaultAioHttpClient(
        timeout=timeout, limits=LIMITS, trust_env=target.kind != ENGINE, verify=get_tls_settings()
    )
    return openai.AsyncOpenAI(
        base_url=api_url(target),
        api_key=target.api_key or "none",
        max_retries=0,  # ours know about first tokens: retries.py
        http_client=http_client,
    )


def api_url(target: ModelTarget) -> str:
    """With `/v1`. Never left to the SDK, which would read OPENAI_BASE_URL for a connection that is not OpenAI's."""
    if target.kind == ENGINE:
        return f"{target.base_url.rstrip('/')}/v1"
    return target.base_url or OPENAI_URL
