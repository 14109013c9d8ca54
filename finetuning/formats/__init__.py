"""Training examples from files: one example type, readers for the usual formats, and what datasets are made of.

Plain Python: no Django, no torch; pyarrow only while a parquet file is read.
"""

from finetuning.formats.detection import Detection, detect
from finetuning.formats.examples import (
    EXAMPLE_TYPES,
    ChatExample,
    ClassificationExample,
    Example,
    Kind,
    KtoExample,
    Message,
    PreferenceExample,
    TextExample,
    example_from_dict,
    example_texts,
    replace_texts,
)
from finetuning.formats.layout import Layout
from finetuning.formats.matching import Match
from finetuning.formats.parsing import parse, with_columns
from finetuning.formats.problems import (
    Code,
    FileRefusedError,
    FormatError,
    Limits,
    Problem,
    RowResult,
    Severity,
)
from finetuning.formats.registry import UnknownFormatError, check_example, get_row_format, list_row_formats

__all__ = [
    "EXAMPLE_TYPES",
    "ChatExample",
    "ClassificationExample",
    "Code",
    "Detection",
    "Example",
    "FileRefusedError",
    "FormatError",
    "Kind",
    "KtoExample",
    "Layout",
    "Limits",
    "Match",
    "Message",
    "PreferenceExample",
    "Problem",
    "RowResult",
    "Severity",
    "TextExample",
    "UnknownFormatError",
    "check_example",
    "detect",
    "example_from_dict",
    "example_texts",
    "get_row_format",
    "list_row_formats",
    "parse",
    "replace_texts",
    "with_columns",
]
