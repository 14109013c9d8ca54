"""Datasets: files and conversations come in, people review them, frozen versions of them are trained on."""

from finetuning.datasets.diffs import VersionDiff, diff_versions
from finetuning.datasets.drafts import Counts, Draft, Origin, add_drafts
from finetuning.datasets.freezing import (
    NothingNewError,
    freeze,
    freeze_now,
    freeze_version,
    is_up_to_date,
    newest_version,
)
from finetuning.datasets.importing import import_file, run_import
from finetuning.datasets.imports import cancel_import
from finetuning.datasets.layouts import set_layout
from finetuning.datasets.redaction import redact_version
from finetuning.datasets.review import (
    approve,
    delete_examples,
    edit_example,
    mask_examples,
    reject,
    relabel,
    reopen,
)
from finetuning.datasets.selectors import (
    describe_dataset,
    filter_examples,
    find_dataset,
    get_dataset,
    get_example,
    get_import,
    get_version,
    list_datasets,
    list_examples,
    list_imports,
    list_problems,
    list_versions,
)
from finetuning.datasets.services import change_dataset, create_dataset, delete_dataset, rename_dataset
from finetuning.datasets.uploads import MAX_SIZE, PART_SIZE, count_parts, list_received, receive_part, start_upload
from finetuning.datasets.version_rows import hash_files, iterate_export, read_rows, split_path

__all__ = [
    "MAX_SIZE",
    "PART_SIZE",
    "Counts",
    "Draft",
    "NothingNewError",
    "Origin",
    "VersionDiff",
    "add_drafts",
    "approve",
    "cancel_import",
    "change_dataset",
    "count_parts",
    "create_dataset",
    "delete_dataset",
    "delete_examples",
    "describe_dataset",
    "diff_versions",
    "edit_example",
    "filter_examples",
    "find_dataset",
    "freeze",
    "freeze_now",
    "freeze_version",
    "get_dataset",
    "get_example",
    "get_import",
    "get_version",
    "hash_files",
    "import_file",
    "is_up_to_date",
    "iterate_export",
    "list_datasets",
    "list_examples",
    "list_imports",
    "list_problems",
    "list_received",
    "list_versions",
    "mask_examples",
    "newest_version",
    "read_rows",
    "receive_part",
    "redact_version",
    "reject",
    "relabel",
    "rename_dataset",
    "reopen",
    "run_import",
    "set_layout",
    "split_path",
    "start_upload",
]
