"""Which encoding a file is written in, from its first bytes or, for what can be rewound, from all of it."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from finetuning.formats.layout import Encoding

ENOUGH_LINES = 2000  # with something beyond ASCII; then the question is decided


@dataclass(frozen=True, slots=True)
class EncodingGuess:
    encoding: Encoding
    reason: str
    bad_lines: int = 0  # of those looked at, how many do not fit


def detect_encoding(chunks: Iterable[bytes]) -> EncodingGuess:
    """By byte order mark, by NUL bytes, then by counting lines that are UTF-8; else Windows' Western encoding."""
    iterator = iter(chunks)
    head = next(iterator, b"")
    return _by_mark(head) or _by_zeros(head) or _by_lines(_rejoin(head, iterator))


def _rejoin(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


def _by_mark(head: bytes) -> EncodingGuess | None:
    if head.startswith(codecs.BOM_UTF8):
        return EncodingGuess("utf-8-sig", "UTF-8, as its byte order mark says")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return EncodingGuess("utf-16", "UTF-16, as its byte order mark says")
    return None


def _by_zeros(head: bytes) -> EncodingGuess | None:
    """UTF-16 without a mark: in Western text every second byte is zero."""
    sample = head[:4096]
    half = len(sample) // 2
    if half < 2:
        return None
    first, second = sample[0::2].count(0), sample[1::2].count(0)
    if second > half * 0.7 and first < half * 0.1:
        return EncodingGuess("utf-16-le", "UTF-16 (little-endian), by its zero bytes")
    if first > half * 0.7 and second < half * 0.1:
        return EncodingGuess("utf-16-be", "UTF-16 (big-endian), by its zero bytes")
    return None


def _by_lines(chunks: Iterable[bytes]) -> EncodingGuess:
    good = bad = 0
    rest = b""
    for chunk in chunks:
        lines = (rest[-65536:] + chunk).split(b"\n")
        rest = lines.pop()
        new_good, new_bad = _count(lines)
        good, bad = good + new_good, bad + new_bad
        if good + bad > ENOUGH_LINES:
            rest = b""
            break
    new_good, new_bad = _count([rest])
    good, bad = good + new_good, bad + new_bad
    if bad > good:
        return EncodingGuess("cp1252", "Windows-1252 (Western European), as it is not UTF-8", 0)
    if bad:
        return EncodingGuess("utf-8", f"UTF-8, except for at least {bad} lines that are not", bad)
    return EncodingGuess("utf-8", "UTF-8")


def _count(lines: list[bytes]) -> tuple[int, int]:
    good = bad = 0
    for line in lines:
        if not line.isascii():
            try:
                line.decode()
                good += 1
            except UnicodeDecodeError:
                bad += 1
    return good, bad
