"""What the web process does once before the crowd comes, beside serving the first pages."""

from __future__ import annotations

import asyncio
import gc

from models_hub import clients


async def warm_up() -> None:
    """Load what the first question needs. Then tell the collector that all of it stays.

    A full round of the collector looked through all code again and again: 160 to 200 ms each time, within which nobody
    got a word, and the first burst of messages always met one. What is frozen it passes over.
    """
    await asyncio.to_thread(clients.preload)
    gc.collect()
    gc.freeze()
