"""Pages of what comes into a dataset: an upload that stopped, columns to be mapped, the report, and conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from chat.errors import ChatError
from finetuning import datasets as services
from finetuning.formats import UnknownFormatError, get_row_format, list_row_formats
from finetuning.formats.matching import find_columns
from finetuning.formats.parsing import GROUP
from finetuning.formats.registry import RowFormat
from finetuning.models import Dataset, DatasetImport
from finetuning.pages.doors import curators_only
from finetuning.pages.shown import name_findings

Status = DatasetImport.Status
BUSY = (Status.QUEUED, Status.RUNNING)
ENDED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
ACRONYMS = {"json": "JSON", "csv": "CSV", "nul": "NUL"}
TABLES = ("csv", "parquet")
CONTAINERS = {"jsonl": "JSON lines", "json": "JSON", "csv": "Table", "lines": "Lines of text", "parquet": "Parquet"}


@dataclass(frozen=True, slots=True)
class MappedField:
    """One field of the chosen format in the form that maps columns."""

    name: str
    title: str
    required: bool
    column: str
    error: str = ""


@require_http_methods(["GET", "HEAD", "POST"])
@curators_only
def source_import(request: HttpRequest, dataset_id: int, import_id: UUID) -> HttpResponse:
    """The page in every state; for htmx its changing part. A POST cancels, or says which column is what."""
    found, item = _find(request, dataset_id, import_id)
    if request.method != "POST":
        return _render_import(request, found, item)
    try:
        if request.POST.get("action") == "layout":
            services.set_layout(item, **_read_layout(request.POST))
        else:
            services.cancel_import(item)
    except ChatError as error:
        return _render_import(request, found, item, error=error.message, status=error.status)
    return redirect("datasets:import", found.pk, item.pk)


def _find(request: HttpRequest, dataset_id: int, import_id: UUID) -> tuple[Dataset, DatasetImport]:
    found = services.get_dataset(dataset_id, user=request.user)
    return found, services.get_import(import_id, user=request.user, dataset=found)


def _render_import(
    request: HttpRequest, found: Dataset, item: DatasetImport, *, error: str = "", status: int = 200
) -> HttpResponse:
    context = {
        "dataset": found,
        "import": item,
        "error": error,
        "is_busy": item.status in BUSY,
        "has_ended": item.status in ENDED,
        "sentence": _describe(item),
    }
    if item.status == Status.RECEIVING:
        context |= {"received": services.list_received(item), "parts": services.count_parts(item)}
    elif item.status == Status.WAITING:
        context |= _layout_context(request, found, item)
    else:
        context |= _report_context(request, item)
    template = "finetuning/_dataset_import.html" if request.htmx else "finetuning/dataset_import.html"
    return render(request, template, context, status=status)


def _describe(item: DatasetImport) -> str:
    if item.cancel_requested_at and item.status in (Status.QUEUED, Status.RUNNING):
        return "What was read of it is taken out again."
    match item.status:
        case Status.RECEIVING:
            return "Not everything has arrived yet."
        case Status.WAITING:
            return "Nothing is read before somebody says which column is what."
        case Status.QUEUED:
            return "It is read as soon as a worker is free."
        case Status.RUNNING:
            return "This page can be closed; reading goes on."
        case Status.SUCCEEDED:
            return "Every row was read."
        case Status.FAILED:
            return "Nothing of it is in the dataset."
    return "Nothing of it is in the dataset."


def _report_context(request: HttpRequest, item: DatasetImport) -> dict[str, Any]:
    share = min(1.0, item.bytes_read / item.size) if item.size else None
    return {
        "progress": share if item.status == Status.RUNNING else None,
        "findings": name_findings(item.findings),
        "how": _tell_layout(item.layout),
        **_problems_context(request, item),
    }


def _tell_layout(layout: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not layout.get("format_name"):
        return []
    told = [
        ("Format", get_row_format(layout["format_name"]).title),
        ("File", CONTAINERS.get(layout.get("container", ""), "")),
        ("Letters", layout.get("encoding", "")),
    ]
    columns = layout.get("columns") or {}
    told.append(("Columns", ", ".join(f"{column} as {name}" for name, column in columns.items())))
    return [(name, value) for name, value in told if value]


@require_safe
@curators_only
def problems(request: HttpRequest, dataset_id: int, import_id: UUID) -> HttpResponse:
    """Fragment: the problems of one kind, or, with a cursor, the next rows of them."""
    found, item = _find(request, dataset_id, import_id)
    context = {"dataset": found, "import": item, **_problems_context(request, item)}
    rows_only = bool(request.GET.get("cursor"))
    template = "finetuning/_dataset_problem_rows.html" if rows_only else "finetuning/_dataset_problems.html"
    return render(request, template, context)


def _problems_context(request: HttpRequest, item: DatasetImport) -> dict[str, Any]:
    code = request.GET.get("code", "")
    page = services.list_problems(item, code=code, cursor=request.GET.get("cursor"))
    counted = sorted(item.codes.items(), key=lambda pair: (-pair[1], pair[0]))
    kept = services.count_problems(item, code=code)
    total = item.codes.get(code, 0) if code else sum(item.codes.values())
    return {
        "codes": [{"code": name, "title": _title_of(name), "count": count} for name, count in counted],
        "code": code,
        "problems": page.items,
        "next_cursor": page.next_cursor,
        "left_out": max(0, total - kept),
    }


def _title_of(code: str) -> str:
    words = code.replace("_", " ")
    return next((words.replace(small, large) for small, large in ACRONYMS.items() if small in words.split()), words)


def _layout_context(request: HttpRequest, found: Dataset, item: DatasetImport) -> dict[str, Any]:
    layout = item.layout
    seen = layout.get("seen_columns", [])
    formats = [row_format for row_format in list_row_formats() if not found.kind or row_format.kind == found.kind]
    chosen = request.POST.get("format_name") or layout.get("format_name") or _likely(formats, layout)
    sample = layout.get("sample", [])
    return {
        "reason": layout.get("reason", ""),
        "formats": formats,
        "chosen": chosen,
        "columns": seen,
        "samples": [[row.get(column, "") for column in seen] for row in sample],
        "fields": _map_fields(chosen, seen, request.POST),
    }


def _likely(formats: list[RowFormat], layout: Mapping[str, Any]) -> str:
    """The format most of whose fields have a column that is known to mean it; of a table first those made of texts."""
    seen = layout.get("seen_columns", [])
    is_table = layout.get("container") in TABLES

    def rank(row_format: RowFormat) -> tuple[int, bool]:
        known = sum(field.name in seen for field in row_format.fields) + len(find_columns(row_format, seen))
        return known, is_table and row_format.name in ("prompt_completion", "classification")

    return max(formats, key=rank).name if formats else ""


@require_safe
@curators_only
def columns(request: HttpRequest, dataset_id: int, import_id: UUID) -> HttpResponse:
    """Fragment: the fields of another format."""
    _, item = _find(request, dataset_id, import_id)
    seen = item.layout.get("seen_columns", [])
    fields = _map_fields(request.GET.get("format_name", ""), seen, {})
    return render(request, "finetuning/_dataset_columns.html", {"fields": fields, "columns": seen})


def _map_fields(format_name: str, seen: list[str], given: Mapping[str, str]) -> list[MappedField]:
    try:
        row_format = get_row_format(format_name)
    except UnknownFormatError:
        return []
    guessed = {field.name: field.name for field in row_format.fields if field.name in seen}
    guessed |= find_columns(row_format, seen)
    fields = []
    for field in row_format.fields:
        column = given.get(f"column-{field.name}", guessed.get(field.name, ""))
        error = "Choose a column." if given and field.required and not column else ""
        fields.append(MappedField(field.name, field.name.replace("_", " ").capitalize(), field.required, column, error))
    column = given.get(f"column-{GROUP}", "")
    return [*fields, MappedField(GROUP, "Conversation it belongs to", False, column)]


def _read_layout(form: Mapping[str, str]) -> dict[str, Any]:
    names = {name.removeprefix("column-"): column for name, column in form.items() if name.startswith("column-")}
    return {
        "format_name": form.get("format_name", ""),
        "columns": {name: column for name, column in names.items() if column},
    }
