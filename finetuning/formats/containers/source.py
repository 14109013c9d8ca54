"""A file or a binary stream, read in chunks with the reader's progress told, its text turned into UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO

Progress = Callable[[int, int | None], None]  # bytes read, bytes in all when known
Openable = str | Path | BinaryIO
CHUNK_BYTES = 256 * 1024


@contextmanager
def open_source(source: Openable) -> Iterator[BinaryIO]:
    """A binary stream for a path, or the caller's own, which stays open."""
    if isinstance(source, str | Path):
        with Path(source).open("rb") as stream:
            yield stream
    else:
        yield source


def measure(stream: BinaryIO) -> int | None:
    """The bytes between here and the end; None for a stream that cannot be measured."""
    if not stream.seekable():
        return None
    here = stream.tell()
    end = stream.seek(0, SEEK_END)
    stream.seek(here)
    return end - here


def read_chunks(stream: BinaryIO, *, on_progress: Progress | None = None) -> Iterator[bytes]:
    total = measure(stream) if on_progress else None
    done = 0
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk
        done += len(chunk)
        if on_progress:
            on_progress(done, total)


def to_utf8(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """The same text as UTF-8 bytes without a byte order mark.

    What does not decode comes out as bytes that are not UTF-8, so that the row it stands in is refused, not the file.
    """
    if encoding == "utf-8":
        yield from chunks
    elif encoding == "utf-8-sig":
        yield from _without_mark(chunks)
    else:
        yield from _transcode(chunks, encoding)


def _without_mark(chunks: Iterator[bytes]) -> Iterator[bytes]:
    start = b""
    for chunk in chunks:
        start += chunk
        if len(start) >= len(codecs.BOM_UTF8):
            break
    yield start.removeprefix(codecs.BOM_UTF8)
    yield from chunks


def _transcode(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    errors = "surrogatepass" if encoding.startswith("utf-16") else "surrogateescape"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
    if decoder.getstate()[0]:
        yield b"\xff"  # half a character at the end
