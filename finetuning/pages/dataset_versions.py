"""Pages of frozen versions: the list with the form that freezes, one version with what used it, and two compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import NoReverseMatch, reverse
from django.views.decorators.http import require_http_methods, require_safe

from chat.errors import ChatError, InvalidError
from finetuning import datasets as services
from finetuning.models import Dataset, DatasetVersion, FineTuningJob, Lineage
from finetuning.pages.charts import draw_lengths, draw_shares, stack_shares
from finetuning.pages.datasets import head
from finetuning.pages.doors import curators_only
from finetuning.pages.forms import FreezeForm
from finetuning.pages.shown import excerpt

READY = DatasetVersion.Status.READY
SHOWN_VERSIONS = 100
SHOWN_ROWS = 50


@require_http_methods(["GET", "HEAD", "POST"])
@curators_only
def versions(request: HttpRequest, dataset_id: int) -> HttpResponse:
    """A POST freezes; the new version's page watches it."""
    found = services.get_dataset(dataset_id, user=request.user)
    form = FreezeForm(request.POST or None, label_suffix="")
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            made = services.freeze(
                found, user=request.user, seed=values["seed"], shares=form.shares, notes=values["notes"]
            )
        except ChatError as error:
            form.add_error(None, error.message)
        else:
            return redirect("datasets:version", found.pk, made.number)
    listed = list(found.versions.order_by("-number")[:SHOWN_VERSIONS])
    context = head(found) | {
        "versions": listed,
        "ready": [version for version in listed if version.status == READY],
        "form": form,
        "split_fields": [form["validation"], form["test"], form["seed"]],
    }
    return render(request, "finetuning/dataset_versions.html", context, status=400 if form.errors else 200)


@require_safe
@curators_only
def version(request: HttpRequest, dataset_id: int, version_number: int) -> HttpResponse:
    """For htmx the part that changes while it is frozen."""
    found = services.get_dataset(dataset_id, user=request.user)
    shown = services.get_version(found, version_number)
    report = shown.report
    context = {
        "dataset": found,
        "version": shown,
        "other": found.versions.filter(status=READY, number__lt=version_number).first(),
        "splits": stack_shares([(name, count, name) for name, count in shown.counts.items()]),
        "lengths": draw_lengths(report.get("lengths", {})),
        "labels": draw_shares(report.get("labels", {}).get("counts", {})),
        "majority": shown.kind == Dataset.Kind.CLASSIFICATION,
        "warnings": [warning["message"] for warning in report.get("warnings", [])],
        "uses": list(_list_uses(shown)),
        "new_job_url": _url("jobs:new"),
    }
    template = "finetuning/_dataset_version.html" if request.htmx else "finetuning/dataset_version.html"
    return render(request, template, context)


@dataclass(frozen=True, slots=True)
class Use:
    """A job on this version and the model version that came of it, either of which may be missing."""

    job: FineTuningJob | None
    job_url: str
    method: str
    state: str
    version: Any
    withdrawn_rows: int
    created_at: datetime


def _list_uses(shown: DatasetVersion) -> Iterable[Use]:
    lineages = list(shown.lineages.select_related("version__model", "job").order_by("-created_at")[:SHOWN_VERSIONS])
    by_job = {lineage.job_id: lineage for lineage in lineages if lineage.job_id}
    for job in shown.jobs.order_by("-created_at")[:SHOWN_VERSIONS]:
        lineage = by_job.pop(job.pk, None)
        yield _make_use(job, lineage)
    for lineage in lineages:
        if lineage.job_id is None or lineage.job_id in by_job:
            yield _make_use(None, lineage)


def _make_use(job: FineTuningJob | None, lineage: Lineage | None) -> Use:
    source = job or lineage
    methods = dict(FineTuningJob._meta.get_field("method").choices)
    return Use(
        job,
        _url("jobs:job", job.pk) if job else "",
        methods.get(source.method, source.method),
        job.get_status_display() if job else "",
        lineage.version if lineage else None,
        lineage.withdrawn_rows if lineage and lineage.withdrawn_at else 0,
        source.created_at,
    )


def _url(name: str, *arguments: Any) -> str:
    try:
        return reverse(name, args=arguments)
    except NoReverseMatch:
        return ""


@require_safe
@curators_only
def diff(request: HttpRequest, dataset_id: int) -> HttpResponse:
    """`?old=1&new=2`; without them the two newest."""
    found = services.get_dataset(dataset_id, user=request.user)
    ready = list(found.versions.filter(status=READY).order_by("-number")[:SHOWN_VERSIONS])
    if len(ready) < 2:
        return redirect("datasets:versions", found.pk)
    try:
        numbers = [int(request.GET.get(name) or ready[place].number) for place, name in enumerate(("new", "old"))]
        new, old = (services.get_version(found, number) for number in numbers)
        compared = services.diff_versions(old, new)
    except (ValueError, InvalidError):
        messages.error(request, "Choose two versions that are ready.")
        return redirect("datasets:versions", found.pk)
    added = [DiffRow.make(row, new.kind) for row in compared.added_rows]
    removed = [DiffRow.make(row, old.kind) for row in compared.removed_rows]
    sides = [("Added", "added", compared.added, added), ("Removed", "removed", compared.removed, removed)]
    context = {"dataset": found, "ready": ready, "compared": compared, "sides": sides}
    return render(request, "finetuning/dataset_diff.html", context)


@dataclass(frozen=True, slots=True)
class DiffRow:
    asked: str
    answered: str
    label: str

    @classmethod
    def make(cls, row: Mapping[str, Any], kind: str) -> DiffRow:
        return cls(*excerpt(row["content"], kind), row["label"])
