"""Pages of datasets as a whole: the list, a new one, its overview, its end. Uploads go through the JSON API."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from chat.errors import ChatError, InvalidError
from finetuning import datasets as services
from finetuning.datasets.selectors import count_by_status
from finetuning.formats import list_row_formats
from finetuning.models import Dataset, Example, Lineage
from finetuning.pages.charts import draw_lengths, draw_shares
from finetuning.pages.dataset_cards import OPEN, make_cards, share_statuses
from finetuning.pages.doors import curators_only
from finetuning.pages.forms import AboutForm

ACCEPTED = ".jsonl,.ndjson,.json,.csv,.tsv,.txt,.parquet"
SHOWN_IMPORTS = 20


@require_safe
@curators_only
def list_page(request: HttpRequest) -> HttpResponse:
    """For htmx the next cards alone."""
    page = services.list_datasets(user=request.user, cursor=request.GET.get("cursor"))
    context = {"cards": make_cards(page.items), "next_cursor": page.next_cursor}
    template = "finetuning/_dataset_cards.html" if request.htmx else "finetuning/datasets.html"
    return render(request, template, context)


@require_safe
@curators_only
def new(request: HttpRequest) -> HttpResponse:
    return render(request, "finetuning/dataset_new.html", _upload_context())


@require_safe
@curators_only
def add(request: HttpRequest, dataset_id: int) -> HttpResponse:
    found = services.get_dataset(dataset_id, user=request.user)
    return render(request, "finetuning/dataset_new.html", _upload_context(found.kind) | {"dataset": found})


def _upload_context(kind: str = "") -> dict[str, Any]:
    formats = [row_format for row_format in list_row_formats() if not kind or row_format.kind == kind]
    names = dict(Dataset.Kind.choices)
    return {
        "accept": ACCEPTED,
        "max_bytes": services.MAX_SIZE,
        "formats": [{"title": item.title, "kind": names[item.kind], "fields": item.fields} for item in formats],
    }


@require_http_methods(["GET", "HEAD", "POST"])
@curators_only
def dataset(request: HttpRequest, dataset_id: int) -> HttpResponse:
    """The overview; a POST gives the dataset another name and description."""
    found = services.get_dataset(dataset_id, user=request.user)
    form = AboutForm(
        request.POST or None, label_suffix="", initial={"name": found.name, "description": found.description}
    )
    if request.method == "POST" and form.is_valid():
        try:
            services.rename_dataset(found, **form.cleaned_data)
        except InvalidError as error:
            form.add_error("name", error.message)
        else:
            messages.success(request, "Saved.")
            return redirect("datasets:dataset", found.pk)
    context = _overview(found) | {"form": form}
    return render(request, "finetuning/dataset.html", context, status=400 if form.errors else 200)


def _overview(found: Dataset) -> dict[str, Any]:
    described = services.describe_dataset(found)
    imports = list(found.imports.order_by("-created_at")[:SHOWN_IMPORTS])
    return head(found) | {
        "imports": imports,
        "open_imports": [item for item in imports if item.status in OPEN],
        "lengths": draw_lengths(described["lengths"]),
        "labels": draw_shares(described["labels"]),
        "majority": found.kind == Dataset.Kind.CLASSIFICATION,
        "with_findings": described["with_findings"],
        "warnings": described["warnings"],
        "is_sample": described["is_sample"],
    }


def head(found: Dataset) -> dict[str, Any]:
    """What the head of each page of a dataset shows."""
    counts = count_by_status(found)
    return {
        "dataset": found,
        "total": sum(counts.values()),
        "pending": counts[Example.Status.PENDING],
        "approved": counts[Example.Status.APPROVED],
        "status_shares": share_statuses(counts),
    }


@require_http_methods(["GET", "HEAD", "POST"])
@curators_only
def delete(request: HttpRequest, dataset_id: int) -> HttpResponse:
    found = services.get_dataset(dataset_id, user=request.user)
    error = ""
    if request.method == "POST":
        try:
            services.delete_dataset(found)
        except ChatError as refusal:
            error = refusal.message
        else:
            messages.success(request, f"“{found.name}” is deleted.")
            return redirect("datasets:list")
    context = head(found) | {
        "error": error,
        "versions": found.versions.count(),
        "models": Lineage.objects.filter(dataset_version__dataset=found).count(),
    }
    return render(request, "finetuning/dataset_delete.html", context, status=409 if error else 200)
