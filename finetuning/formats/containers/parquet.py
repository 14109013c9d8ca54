"""Parquet, in small batches of a row group at a time. pyarrow is imported on the first read only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from finetuning.formats.containers.jsonl import RawRow
from finetuning.formats.containers.source import Progress, measure
from finetuning.formats.problems import Code, FileRefusedError, Limits, Problem

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_ROWS = 256
MAX_BATCH_BYTES = 32 * 1024 * 1024
MAX_COLUMN_CHUNK_BYTES = 1024 * 1024 * 1024  # of one column in one row group, unpacked

PACKABLE = ("STRING", "NONE", "JSON", "ENUM")


def read_parquet(stream: BinaryIO, limits: Limits, *, on_progress: Progress | None = None) -> Iterator[RawRow]:
    """Raises FileRefusedError for a file that is not parquet or unpacks to far too much."""
    import pyarrow as pa

    total = measure(stream)
    if total is None:
        raise FileRefusedError(Code.UNKNOWN_LAYOUT, "Parquet can be read from a file only, not from a stream.")
    try:
        file = _open(stream, limits)
        row = 0
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group]):
                for value in _batch_rows(batch, limits):
                    row += 1
                    yield row, value
            if on_progress and total:
                on_progress(total * (group + 1) // file.num_row_groups, total)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FileRefusedError(Code.BROKEN_FILE, "The parquet file is damaged or cut off.") from error


def list_parquet_columns(stream: BinaryIO, limits: Limits) -> list[str]:
    import pyarrow as pa

    try:
        return list(_open(stream, limits).schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise FileRefusedError(Code.BROKEN_FILE, "The parquet file is damaged or cut off.") from error


def _open(stream: BinaryIO, limits: Limits) -> pq.ParquetFile:
    """Texts stay packed as dictionaries: a megabyte repeated a million times costs a megabyte."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(stream)
    if metadata.num_columns > limits.max_columns:
        message = f"The file has {metadata.num_columns} columns; at most {limits.max_columns} are read."
        raise FileRefusedError(Code.TOO_MANY_COLUMNS, message)
    texts = set()
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            if column.total_uncompressed_size > MAX_COLUMN_CHUNK_BYTES:
                raise FileRefusedError(Code.ROW_TOO_LONG, "A column unpacks to more than a gigabyte in one row group.")
            if column.physical_type == "BYTE_ARRAY" and metadata.schema.column(index).logical_type.type in PACKABLE:
                texts.add(column.path_in_schema)
    return pq.ParquetFile(stream, read_dictionary=sorted(texts), buffer_size=1024 * 1024, pre_buffer=False)


def _batch_rows(batch: pa.RecordBatch, limits: Limits) -> Iterator[dict[str, Any] | Problem]:
    if sum(_unpacked_size(column) for column in batch.columns) <= MAX_BATCH_BYTES:
        yield from batch.to_pylist()
        return
    for index in range(batch.num_rows):
        row = batch.slice(index, 1)
        if sum(_unpacked_size(column) for column in row.columns) > limits.max_row_bytes:
            yield Problem(Code.ROW_TOO_LONG, f"The row is longer than {limits.max_row_bytes:,} bytes and was not read.")
        else:
            yield from row.to_pylist()


def _unpacked_size(array: pa.Array) -> int:
    """About how many bytes of text the array unpacks to, without unpacking it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_dictionary(kind):
        lengths = pc.binary_length(array.dictionary).take(array.indices)
        return pc.sum(lengths).as_py() or 0
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _unpacked_size(array.flatten())
    if pa.types.is_struct(kind):
        return sum(_unpacked_size(child) for child in array.flatten())
    return array.nbytes
