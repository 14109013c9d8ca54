"""The pages about fine-tuning jobs. Doors: check, one call, render; what is live comes over the socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from chat.errors import ChatError, InvalidError
from finetuning import jobs, versions
from finetuning.live import feed
from finetuning.models import FineTuningJob
from finetuning.pages.doors import curators_only
from finetuning.pages.job_reads import EndedPage, get_queue, list_ended, reorder
from finetuning.pages.job_shown import show_failure, show_preflight, show_result

ENDED_FILTERS = (("", "All"), ("succeeded", "Succeeded"), ("failed", "Failed"), ("cancelled", "Cancelled"))


@require_safe
@curators_only
def job_list(request: HttpRequest) -> HttpResponse:
    """`finetuning/jobs.html`; for htmx `?part=queue` or `ended` the fragment `_job_queue.html` or `_job_ended.html`."""
    part = request.GET.get("part") if request.htmx else None
    context: dict[str, Any] = {"ended_filters": ENDED_FILTERS, "status": request.GET.get("status", "")}
    if part != "ended":
        context["queue"] = get_queue(user=request.user)
    if part != "queue":
        context["ended"] = _ended(request, context["status"])
    template = {"queue": "finetuning/_job_queue.html", "ended": "finetuning/_job_ended.html"}
    return render(request, template.get(part or "", "finetuning/jobs.html"), context)


def _ended(request: HttpRequest, status: str) -> EndedPage:
    try:
        return list_ended(user=request.user, status=status, cursor=request.GET.get("cursor"))
    except InvalidError as error:
        raise Http404(error.message) from error


@require_safe
@curators_only
def job(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """`finetuning/job.html`; for htmx its fragment `_job_state.html`, which changes with the job's revision."""
    shown = jobs.get_job(job_id, user=request.user)
    if request.htmx:
        return render(request, "finetuning/_job_state.html", _state(shown))
    return _page(request, shown)


def _page(request: HttpRequest, shown: FineTuningJob, *, status: int = 200, **more: Any) -> HttpResponse:
    page_data = {
        "job": feed.job_to_dict(shown),
        "metrics": feed.list_points(shown.pk),
        "events": feed.list_news(shown.pk),
    }
    return render(request, "finetuning/job.html", {**_state(shown), "page_data": page_data, **more}, status=status)


def _state(shown: FineTuningJob) -> dict[str, Any]:
    return {
        "job": shown,
        "revision": feed.revision_of(shown),
        "failure": show_failure(shown),
        "result": show_result(shown),
        "tab": "job",
    }


@require_safe
@curators_only
def preflight(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """`finetuning/job_preflight.html`, also while the check still runs."""
    shown = jobs.get_job(job_id, user=request.user)
    context = {
        "job": shown,
        "revision": feed.revision_of(shown),
        "report": show_preflight(shown),
        "failure": show_failure(shown),
        "tab": "preflight",
    }
    template = "finetuning/_job_preflight.html" if request.htmx else "finetuning/job_preflight.html"
    return render(request, template, context)


# --- what a person does -----------------------------------------------------------------------------------------------


def _act(request: HttpRequest, act: Callable[[], Any], *, done: str) -> Any:
    """What `act` returned; None when it was refused, which the next page says."""
    try:
        result = act()
    except ChatError as error:
        messages.error(request, error.message)
        return None
    messages.success(request, done)
    return result


@require_POST
@curators_only
def cancel(request: HttpRequest, job_id: UUID) -> HttpResponse:
    shown = jobs.get_job(job_id, user=request.user)
    _act(request, lambda: jobs.cancel_job(shown), done="The job is being cancelled.")
    return redirect("jobs:job", job_id)


@require_POST
@curators_only
def resume(request: HttpRequest, job_id: UUID) -> HttpResponse:
    shown = jobs.get_job(job_id, user=request.user)
    _act(request, lambda: jobs.resume_job(shown), done="The job goes on from its last checkpoint when its turn comes.")
    return redirect("jobs:job", job_id)


@require_POST
@curators_only
def start(request: HttpRequest, job_id: UUID) -> HttpResponse:
    shown = jobs.get_job(job_id, user=request.user)
    _act(request, lambda: jobs.start_job(shown), done="The job starts when its turn comes.")
    return redirect("jobs:job", job_id)


@require_POST
@curators_only
def retry(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """A new job like this one; `suggested` with what the failure suggests."""
    shown = jobs.get_job(job_id, user=request.user)
    changed = dict(show_failure(shown).suggestion) if "suggested" in request.POST else {}
    again = _act(
        request,
        lambda: jobs.retry_job(shown, user=request.user, hyperparameters=changed),
        done="A new job was made from this one.",
    )
    return redirect("jobs:job", again.pk if again else job_id)


@require_POST
@curators_only
def move(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """`direction` is up, down or first. Answers with the queue as it is then."""
    places = {"up": 1, "down": -1, "first": 10_000}.get(request.POST.get("direction", ""), 0)
    changes = reorder(get_queue(user=request.user).state.waiting, job_id, places=places)
    try:
        for waiting, priority in changes.items():
            jobs.set_priority(waiting, priority)
    except ChatError as error:
        messages.error(request, error.message)
    return _queue(request)


@require_POST
@curators_only
def pause_queue(request: HttpRequest) -> HttpResponse:
    jobs.pause_queue(request.user)
    return _queue(request)


@require_POST
@curators_only
def open_queue(request: HttpRequest) -> HttpResponse:
    jobs.open_queue()
    return _queue(request)


def _queue(request: HttpRequest) -> HttpResponse:
    if not request.htmx:
        return redirect("jobs:list")
    return render(request, "finetuning/_job_queue.html", {"queue": get_queue(user=request.user)})


@require_POST
@curators_only
def promote(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """The version that came out of it becomes what its model answers with. What was typed is not lost."""
    shown = jobs.get_job(job_id, user=request.user)
    reason = request.POST.get("reason", "")
    if shown.result_version is None:
        messages.error(request, "This job has no version yet that could be promoted.")
        return redirect("jobs:job", job_id)
    try:
        versions.promote(shown.result_version, actor=request.user, reason=reason)
    except ChatError as error:
        return _page(request, shown, status=400, promote_reason=reason, promote_error=error.message)
    messages.success(request, f"{shown.result_version.model.slug} now answers with this version.")
    return redirect("jobs:job", job_id)
