"""The review queue: one row at a time or as a list, decisions about one row or all that match, and the editor."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from chat.errors import ChatError, InvalidError
from finetuning import datasets as services
from finetuning.datasets.bulk_review import decide_about_all
from finetuning.formats.measures import DESIRABLE, UNDESIRABLE
from finetuning.models import Dataset, Example
from finetuning.pages.datasets import head
from finetuning.pages.doors import curators_only
from finetuning.pages.editing import edit_sections, read_content
from finetuning.pages.queue import Filter, find_place
from finetuning.pages.shown import FINDINGS, ROLES, ListedRow, list_row, show_example

DONE = {
    "approve": "Approved.",
    "reject": "Rejected: it stays here and is left out of versions.",
    "mask": "Personal data is masked. Look at it once more and decide.",
    "relabel": "The label is changed.",
    "reopen": "Back in the queue.",
    "save": "Saved. The original is kept beside it.",
}
BULK = {
    "approve": "{count} rows are approved.",
    "reject": "{count} rows are rejected.",
    "mask": "Personal data is masked in {count} rows.",
}
REFUSED = 422  # dataset_review.js puts the answer in place of the form all the same


@require_http_methods(["GET", "HEAD", "POST"])
@curators_only
def review(request: HttpRequest, dataset_id: int) -> HttpResponse:
    """The page; for htmx the part below the filters. A POST decides about every row that matches."""
    found = services.get_dataset(dataset_id, user=request.user)
    if request.method == "POST":
        return _decide_all(request, found)
    shown = Filter.parse(request.GET)
    if request.htmx and request.GET.get("cursor"):
        context = _list_context(request, found, shown, cursor=request.GET["cursor"])
        return render(request, "finetuning/_dataset_example_rows.html", context)
    return _render_review(request, found, shown, example_id=_number(request, "example"))


def _decide_all(request: HttpRequest, found: Dataset) -> HttpResponse:
    shown = Filter.parse(request.POST)
    action, up_to = request.POST.get("action", ""), _number(request, "up_to") or 0
    try:
        count, is_done = decide_about_all(found, action=action, filters=shown.filters, up_to=up_to, user=request.user)
    except ChatError as error:
        messages.error(request, error.message)
    else:
        sentence = BULK[action] if is_done else "That is under way for {count} rows; this page can be closed."
        messages.success(request, sentence.format(count=f"{count:,}"))
    return redirect(f"{reverse('datasets:review', args=[found.pk])}?{shown.query_string}")


@require_http_methods(["GET", "HEAD", "POST"])
@curators_only
def example(request: HttpRequest, dataset_id: int, example_id: int) -> HttpResponse:
    """A POST decides about one row; htmx gets what comes next, or in a list the row as it is now."""
    found = services.get_dataset(dataset_id, user=request.user)
    row = services.get_example(example_id, user=request.user, dataset=found)
    shown = Filter.parse(request.POST if request.method == "POST" else request.GET)
    if request.method != "POST":
        return redirect(_address(found, shown, example=row.pk))
    action = request.POST.get("action", "")
    try:
        _decide(Example.objects.filter(pk=row.pk), action, request)
    except ChatError as error:
        return _refuse(request, found, shown, row, error)
    return _after(request, found, shown, row, action)


def _decide(rows: QuerySet[Example], action: str, request: HttpRequest) -> int:
    """How many rows it was. Raises InvalidError."""
    match action:
        case "approve":
            return services.approve(rows, user=request.user)
        case "reject":
            return services.reject(rows, user=request.user)
        case "mask":
            return services.mask_examples(rows, user=request.user)
        case "reopen":
            return services.reopen(rows, user=request.user)
        case "relabel":
            return services.relabel(rows, request.POST.get("label", "").strip(), user=request.user)
    raise InvalidError("Choose what to do with this row.")


def _after(request: HttpRequest, found: Dataset, shown: Filter, row: Example, action: str) -> HttpResponse:
    done = DONE[action]
    is_there = Example.objects.filter(pk=row.pk).exists()
    if not is_there:
        done = "It then said the same as another row, which stays in its place."
    stays = is_there and action in ("mask", "relabel", "save", "reopen")
    if not request.htmx:
        messages.success(request, done)
        return redirect(_address(found, shown, **{"example" if stays else "after": row.pk}))
    if shown.mode == "list":
        return _render_row(request, found, shown, row.pk) if is_there else HttpResponse("")
    choice = {"example_id": row.pk} if stays else {"after": row.pk}
    return _render_review(request, found, shown, done=done, **choice)


def _render_row(request: HttpRequest, found: Dataset, shown: Filter, example_id: int) -> HttpResponse:
    row = services.get_example(example_id, user=request.user, dataset=found)
    context = head(found) | {"filter": shown, "item": list_row(row, found.kind), "row": row, "is_decision": True}
    return render(request, "finetuning/_dataset_example_row.html", context)


def _refuse(request: HttpRequest, found: Dataset, shown: Filter, row: Example, error: ChatError) -> HttpResponse:
    if request.htmx and shown.mode == "list":
        return HttpResponse(error.message, status=400, content_type="text/plain")
    return _render_review(request, found, shown, example_id=row.pk, error=error.message)


@require_http_methods(["GET", "HEAD", "POST"])
@curators_only
def edit(request: HttpRequest, dataset_id: int, example_id: int) -> HttpResponse:
    found = services.get_dataset(dataset_id, user=request.user)
    row = services.get_example(example_id, user=request.user, dataset=found)
    if request.method != "POST":
        return _render_editor(request, found, Filter.parse(request.GET), row, row.content)
    shown = Filter.parse(request.POST)
    content = read_content(request.POST, found.kind)
    try:
        services.edit_example(row, content, user=request.user)
    except ChatError as error:
        return _render_editor(request, found, shown, row, content, error=error.message)
    if request.POST.get("action") == "approve":
        services.approve(Example.objects.filter(pk=row.pk), user=request.user)
        return _after(request, found, shown, row, "approve")
    return _after(request, found, shown, row, "save")


def _render_editor(
    request: HttpRequest, found: Dataset, shown: Filter, row: Example, content: dict[str, Any], *, error: str = ""
) -> HttpResponse:
    context = {
        "dataset": found,
        "filter": shown,
        "row": row,
        "kind": found.kind,
        "sections": edit_sections(content, found.kind),
        "label": content.get("label", ""),
        "labels": _labels(found),
        "roles": ROLES.items(),
        "error": error,
    }
    status = REFUSED if error else 200
    if request.htmx:
        return render(request, "finetuning/_dataset_edit.html", context, status=status)
    return _render_page(request, found, shown, context | {"editing": True}, status=status)


def _render_review(
    request: HttpRequest,
    found: Dataset,
    shown: Filter,
    *,
    example_id: int | None = None,
    after: int | None = None,
    done: str = "",
    error: str = "",
) -> HttpResponse:
    matching = shown.find(found)
    context = head(found) | {"filter": shown, "kind": found.kind, "done": done, "error": error}
    context |= {"matching": matching.count(), "up_to": matching.values_list("pk", flat=True).last() or 0}
    if shown.mode == "list":
        context |= _list_context(request, found, shown)
    else:
        place = find_place(found, matching, example_id=example_id, after=after or _number(request, "after"))
        context |= {
            "shown": show_example(place.row, found.kind) if place.row else None,
            "position": place.position,
            "previous": place.previous,
            "following": place.following,
            "labels": _labels(found),
        }
    status = REFUSED if error else 200
    if request.htmx:
        return render(request, "finetuning/_dataset_review.html", context, status=status)
    return _render_page(request, found, shown, context, status=status)


def _render_page(
    request: HttpRequest, found: Dataset, shown: Filter, context: dict[str, Any], *, status: int
) -> HttpResponse:
    choices = {
        "filter": shown,
        "statuses": Example.Status.choices,
        "origins": Example.Origin.choices,
        "findings": [(kind.value, name) for kind, name in FINDINGS.items()],
    }
    return render(request, "finetuning/dataset_review.html", head(found) | choices | context, status=status)


def _list_context(request: HttpRequest, found: Dataset, shown: Filter, *, cursor: str | None = None) -> dict[str, Any]:
    page = services.list_examples(found, user=request.user, **shown.filters, cursor=cursor)
    rows: list[ListedRow] = [list_row(row, found.kind) for row in page.items]
    return {"dataset": found, "filter": shown, "rows": rows, "next_cursor": page.next_cursor}


def _labels(found: Dataset) -> list[str]:
    """What a row may be relabelled to; empty where rows have no label."""
    if found.kind == Dataset.Kind.KTO:
        return [DESIRABLE, UNDESIRABLE]
    if found.kind != Dataset.Kind.CLASSIFICATION:
        return []
    return services.list_labels(found)


def _number(request: HttpRequest, name: str) -> int | None:
    values = request.POST if request.method == "POST" else request.GET
    text = values.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _address(found: Dataset, shown: Filter, **extra: int) -> str:
    more = "".join(f"&{name}={value}" for name, value in extra.items())
    return f"{reverse('datasets:review', args=[found.pk])}?{shown.query_string}{more}"
