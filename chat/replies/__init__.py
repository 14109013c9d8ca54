"""Replies: produced by this process, logged in Valkey, kept in the database, shown to whoever watches, wherever.

`get_hub()` is all that the doors need. The rules are in docs/architecture.md.
"""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from chat.replies.hub import ReplyHub

_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, ReplyHub] = WeakKeyDictionary()


def get_hub() -> ReplyHub:
    """The hub of the running event loop, which is the process's."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        _hubs[loop] = ReplyHub()
    return _hubs[loop]


async def shutdown() -> None:
    """Interrupt what runs, keeping every word. Call it before the loop ends."""
    loop = asyncio.get_running_loop()
    if hub := _hubs.get(loop):
        await hub.stop()
        del _hubs[loop]
