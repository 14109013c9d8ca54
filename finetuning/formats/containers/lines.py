"""Lines out of chunks of bytes, with a bound: a longer line is passed over without being kept."""

from __future__ import annotations

from collections.abc import Iterator

from finetuning.formats.problems import Code, Problem

RawLine = tuple[int, bytes | Problem]  # its number from 1, and its bytes without the line end


def split_lines(chunks: Iterator[bytes], *, max_bytes: int, separator: bytes = b"\n") -> Iterator[RawLine]:
    """Lines as they come; the separator is one byte. A Windows file keeps its trailing carriage returns."""
    rest: list[bytes] = []  # the start of a line whose end has not come
    number, held, skipping = 1, 0, False
    for chunk in chunks:
        pieces = chunk.split(separator)
        for piece in pieces[:-1]:
            if skipping or held + len(piece) > max_bytes:
                yield number, _too_long(max_bytes)
            else:
                yield number, b"".join((*rest, piece)) if rest else piece
            number += 1
            rest, held, skipping = [], 0, False
        held += len(pieces[-1])
        if skipping or held > max_bytes:
            rest, skipping = [], True
        elif pieces[-1]:
            rest.append(pieces[-1])
    if skipping:
        yield number, _too_long(max_bytes)
    elif rest:
        yield number, b"".join(rest)


def decode_line(line: bytes) -> str | Problem:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        return Problem(
            Code.BAD_ENCODING,
            f"Byte {error.start + 1} of the line (0x{line[error.start]:02X}) does not fit the file's encoding.",
        )


def _too_long(max_bytes: int) -> Problem:
    return Problem(Code.ROW_TOO_LONG, f"The line is longer than {max_bytes:,} bytes and was not read.")
