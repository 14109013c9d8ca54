"""Lines out of chunks of bytes, with a bound: a longer line is passed over without being kept."""

from __future__ import annotations

from collections.abc import Iterator

from finetuning.formats.problems import Code, Problem

RawLine = tuple[int, bytes | Problem]  # its number from 1, and its bytes without the line end


def split_lines(chunks: Iterator[bytes], *, max_bytes: int) -> Iterator[RawLine]:
    """Lines as they come. Those of a Windows file keep their carriage return."""
    rest: list[bytes] = []  # the start of a line whose end has not come, dropped once it is too long
    number, held = 1, 0
    for chunk in chunks:
        pieces = chunk.split(b"\n")
        for piece in pieces[:-1]:
            if held + len(piece) > max_bytes:
                yield number, _too_long(max_bytes)
            else:
                yield number, b"".join((*rest, piece)) if rest else piece
            number, rest, held = number + 1, [], 0
        held += len(pieces[-1])
        if held > max_bytes:
            rest = []
        elif pieces[-1]:
            rest.append(pieces[-1])
    if held > max_bytes:
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
