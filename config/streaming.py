"""Long answers, a piece at a time. Django under ASGI would first collect a plain iterator to its end, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse


def stream_file(pieces: Iterator[bytes], *, name: str, content_type: str) -> StreamingHttpResponse:
    """A download. `pieces` may block: each is made in a thread, and only once the one before is on its way."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingHttpResponse(_in_threads(pieces), content_type=content_type, headers=headers)


async def _in_threads(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    take = sync_to_async(_next, thread_sensitive=False)
    try:
        while (piece := await take(pieces)) is not None:
            yield piece
    finally:
        if close := getattr(pieces, "close", None):
            close()


def _next(pieces: Iterator[bytes]) -> bytes | None:
    """In a coroutine StopIteration cannot pass."""
    return next(pieces, None)
