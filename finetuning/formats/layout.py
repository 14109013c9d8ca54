"""How a file is to be read: its container, its encoding, its row format and the caller's column names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Container = Literal["jsonl", "json", "csv", "lines", "parquet"]
Encoding = Literal["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]


@dataclass(frozen=True, slots=True)
class Layout:
    """`columns` says which column of the file holds a field: {"text": "Review", "label": "Stars"}; others keep
    their names. The field "group" is the conversation a row belongs to."""

    container: Container
    format_name: str = ""
    encoding: Encoding = "utf-8"
    delimiter: str = ","
    has_header: bool = True  # without one the columns are called "column 1", "column 2" ...
    columns: Mapping[str, str] = field(default_factory=dict)
