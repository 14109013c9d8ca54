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
MAX_LINE = 4 * 1024 * 1024  # a longer one is converted in pieces: no row may have as much


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
    elif encoding == "cp1252":
        yield from _from_windows(chunks)
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


def _from_windows(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Line by line: files are put together from several, and a line that is UTF-8 already would become gibberish."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield b"".join(_line_to_utf8(line) + b"\n" for line in lines)
        if len(rest) > MAX_LINE:
            yield _line_to_utf8(rest)
            rest = b""
    yield _line_to_utf8(rest)


def _line_to_utf8(line: bytes) -> bytes:
    try:
        line.decode()
    except UnicodeDecodeError:
        return line.decode("cp1252", "surrogateescape").encode("utf-8", "surrogatepass")
    return line
