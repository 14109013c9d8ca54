"""What `/api/datasets` answers with: its shapes, and the rows turned into them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from ninja import Schema
from pydantic import Field

from finetuning import datasets, models
from finetuning.datasets import VersionDiff
from finetuning.datasets.selectors import MAX_PAGE_SIZE, PAGE_SIZE, count_by_status

NEXT = Field(description="Give it as `cursor` to get the next page; null: this is the last.")


class PageQuery(Schema):
    cursor: str | None = None
    limit: int = Field(PAGE_SIZE, ge=1, le=MAX_PAGE_SIZE, description="How many at most.")


class ProblemQuery(PageQuery):
    code: str = ""


class ExampleQuery(PageQuery):
    status: str = Field("", description="pending, approved or rejected.")
    query: str = Field("", description="Text in the row.", alias="q")
    finding: str = Field("", description="Kind of personal data or secret, or `any`.")
    origin: str = Field("", description="file, answer, correction, choice or rating.")
    label: str = ""


class ExportQuery(Schema):
    split: str = Field("", description="train, validation or test.")


class DiffQuery(Schema):
    since: int | None = Field(None, ge=1, le=2**31 - 1, description="Number of the older version.")


class Count(Schema):
    count: int


class Changed(Schema):
    changed: int = Field(description="Rows it changed; with `is_done` false, rows that a worker decides about.")
    is_done: bool = Field(description="False: more rows fit the filter than are decided at once, and a worker does it.")


class Received(Schema):
    received: list[int] = Field(description="Numbers of the parts that are here.")
    parts: int
    status: str = Field(description="receiving until all are here; then queued, waiting or failed.")


class Dataset(Schema):
    id: int
    name: str
    kind: str = Field(description="chat, preference, kto, classification or text; empty until the first row.")
    description: str
    counts: dict[str, int] = Field(description="Rows by status.")
    newest_version: int | None
    created_at: datetime
    updated_at: datetime


class DatasetDetails(Dataset):
    measures: dict[str, Any] = Field(description="Lengths (in characters), labels, warnings.")


class DatasetList(Schema):
    items: list[Dataset]
    next_cursor: str | None = NEXT


class ImportFault(Schema):
    code: str
    message: str


class Import(Schema):
    id: UUID
    dataset_id: int
    source: str = Field(description="file or conversations.")
    status: str = Field(description="receiving, waiting, queued, running, succeeded, failed or cancelled.")
    file_name: str
    size: int
    part_size: int
    parts: int
    received: list[int]
    is_approved: bool
    layout: dict[str, Any] = Field(description="How the file is read: format_name, columns, encoding ...")
    bytes_read: int
    rows_read: int
    rows_added: int
    rows_warned: int
    rows_refused: int
    duplicates: int
    findings: dict[str, int] = Field(description="Rows with personal data or secrets, by kind.")
    codes: dict[str, int] = Field(description="Problems by code.")
    error: ImportFault | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class ImportList(Schema):
    items: list[Import]
    next_cursor: str | None = NEXT


class DatasetWithImport(Dataset):
    import_: Import | None = Field(alias="import")


class Problem(Schema):
    line: int
    code: str
    severity: str
    message: str


class ProblemList(Schema):
    items: list[Problem]
    next_cursor: str | None = NEXT


class Example(Schema):
    id: int
    content: dict[str, Any]
    original: dict[str, Any] | None = Field(description="What it said before somebody changed it.")
    label: str
    length: int
    group: str
    status: str
    origin: str
    findings: dict[str, int]
    line: int
    conversation_id: UUID | None
    message_id: UUID | None
    model_version: str | None = Field(description="Which model wrote the answer, as slug@number.")
    reviewed_by: str | None
    reviewed_at: datetime | None
    created_at: datetime


class ExampleList(Schema):
    items: list[Example]
    next_cursor: str | None = NEXT


class Version(Schema):
    number: int
    status: str = Field(description="freezing, ready or failed.")
    kind: str
    content_hash: str
    seed: int
    shares: dict[str, float]
    counts: dict[str, int] = Field(description="Rows of each split.")
    rows: int
    report: dict[str, Any]
    notes: str
    error_message: str
    redacted_at: datetime | None
    redacted_rows: int
    created_at: datetime


class VersionList(Schema):
    items: list[Version]
    next_cursor: str | None = NEXT


class DiffRow(Schema):
    id: int
    split: str
    label: str
    content: dict[str, Any]


class Diff(Schema):
    old: int
    new: int
    added: int
    removed: int
    kept: int
    moved: int = Field(description="Rows in both that are in another split.")
    is_reordered: bool
    added_rows: list[DiffRow] = Field(description="The first of them.")
    removed_rows: list[DiffRow]


def dataset_to_dict(dataset: models.Dataset) -> dict[str, Any]:
    newest = dataset.versions.order_by("-number").values_list("number", flat=True).first()
    names = ("id", "name", "kind", "description", "created_at", "updated_at")
    shown = {name: getattr(dataset, name) for name in names}
    return shown | {"counts": count_by_status(dataset), "newest_version": newest}


def import_to_dict(source_import: models.DatasetImport) -> dict[str, Any]:
    names = (
        *("id", "dataset_id", "source", "status", "file_name", "size", "part_size", "is_approved", "layout"),
        *("bytes_read", "rows_read", "rows_added", "rows_warned", "rows_refused", "duplicates", "findings", "codes"),
        *("created_at", "started_at", "finished_at"),
    )
    fault = {"code": source_import.error_code, "message": source_import.error_message}
    return {name: getattr(source_import, name) for name in names} | {
        "parts": datasets.count_parts(source_import),
        "received": datasets.list_received(source_import),
        "error": fault if source_import.error_code else None,
    }


def example_to_dict(example: models.Example) -> dict[str, Any]:
    names = (
        *("id", "content", "original", "label", "length", "group", "status", "origin", "findings", "line"),
        *("conversation_id", "message_id", "reviewed_at", "created_at"),
    )
    written_by = example.model_version
    return {name: getattr(example, name) for name in names} | {
        "model_version": f"{written_by.model.slug}@{written_by.number}" if written_by else None,
        "reviewed_by": example.reviewed_by.username if example.reviewed_by else None,
    }


def version_to_dict(version: models.DatasetVersion) -> dict[str, Any]:
    names = (
        *("number", "status", "kind", "content_hash", "seed", "shares", "counts", "rows", "report", "notes"),
        *("error_message", "redacted_at", "redacted_rows", "created_at"),
    )
    return {name: getattr(version, name) for name in names}


def diff_to_dict(diff: VersionDiff) -> dict[str, Any]:
    names = ("added", "removed", "kept", "moved", "is_reordered", "added_rows", "removed_rows")
    return {name: getattr(diff, name) for name in names} | {"old": diff.old.number, "new": diff.new.number}
