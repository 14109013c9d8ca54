"""The page that makes a job. Whatever is wrong is said beside its field, and nothing that was typed is lost."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from chat.errors import ChatError, NotFoundError
from finetuning import jobs
from finetuning.pages.doors import curators_only
from finetuning.pages.job_forms import JobForm, initial_of, method_for

PREFILLED = ("method", "base", "data_source", "target", "name", "system_prompt")


@require_http_methods(["GET", "HEAD", "POST"])
@curators_only
def new_job(request: HttpRequest) -> HttpResponse:
    """`finetuning/job_new.html`; for htmx with `refresh`, after another choice, its fragment `_job_form.html`."""
    if request.method != "POST":
        return _render(request, JobForm(user=request.user, initial=_initial(request)))
    if "refresh" in request.POST:
        return _render(request, JobForm(user=request.user, initial=typed(request)))
    form = JobForm(request.POST, user=request.user, initial={})
    if not form.is_valid():
        return _render(request, form, status=400)
    try:
        job = jobs.create_job(user=request.user, **form.arguments())
    except ChatError as error:
        form.add_error(None, error.message)
        return _render(request, form, status=400)
    return redirect("jobs:preflight" if job.is_held else "jobs:job", job.pk)


def typed(request: HttpRequest) -> dict[str, Any]:
    """What the form held, as if it were new."""
    return {name: value for name, value in request.POST.items() if name not in ("csrfmiddlewaretoken", "refresh")}


def _initial(request: HttpRequest) -> dict[str, Any]:
    initial: dict[str, Any] = {"start": "now"}
    if origin := request.GET.get("from"):
        try:
            initial |= initial_of(jobs.get_job(UUID(origin), user=request.user))
        except (ValueError, NotFoundError):
            return initial  # the job it should be like is gone: an empty form does no harm
    given = {name: request.GET[name] for name in PREFILLED if request.GET.get(name)}
    return initial | method_for(given.get("data_source", "")) | given


def _render(request: HttpRequest, form: JobForm, *, status: int = 200) -> HttpResponse:
    template = "finetuning/_job_form.html" if request.htmx else "finetuning/job_new.html"
    return render(request, template, {"form": form}, status=status)
