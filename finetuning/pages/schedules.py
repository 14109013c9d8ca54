"""The pages about schedules: what trains by itself, when, and what came of it last time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from chat.errors import ChatError
from finetuning import schedules
from finetuning.models import Schedule
from finetuning.pages.doors import curators_only
from finetuning.pages.job_new import typed
from finetuning.pages.schedule_forms import ScheduleForm, describe_cron, initial_of_schedule

STARTING_POINT = {"how_often": "weekly", "weekday": "sun", "at": "02:00", "min_new_examples": 50}


@require_safe
@curators_only
def schedule_list(request: HttpRequest) -> HttpResponse:
    """`finetuning/schedules.html`."""
    rows = [
        {"schedule": found, "when": describe_cron(found.cron), "next": _minute(schedules.next_run_at(found))}
        for found in schedules.list_schedules(user=request.user)
    ]
    return render(request, "finetuning/schedules.html", {"rows": rows, "tab": "schedules"})


def _minute(moment: datetime | None) -> datetime | None:
    """What is reckoned from now on is a few microseconds off."""
    return (moment + timedelta(seconds=30)).replace(second=0, microsecond=0) if moment else None


@require_http_methods(["GET", "HEAD", "POST"])
@curators_only
def new_schedule(request: HttpRequest) -> HttpResponse:
    """`finetuning/schedule_edit.html`; for htmx with `refresh` its fragment `_schedule_form.html`."""
    return _edit(request, None)


@require_http_methods(["GET", "HEAD", "POST"])
@curators_only
def schedule(request: HttpRequest, schedule_id: int) -> HttpResponse:
    return _edit(request, schedules.get_schedule(schedule_id, user=request.user))


def _edit(request: HttpRequest, found: Schedule | None) -> HttpResponse:
    if request.method != "POST":
        initial = initial_of_schedule(found) if found else STARTING_POINT
        return _render(request, found, ScheduleForm(user=request.user, initial=initial))
    if "refresh" in request.POST:
        return _render(request, found, ScheduleForm(user=request.user, initial=typed(request)))
    form = ScheduleForm(request.POST, user=request.user, initial={})
    if not form.is_valid():
        return _render(request, found, form, status=400)
    try:
        _save(request, found, form.arguments())
    except ChatError as error:
        form.add_error(None, error.message)
        return _render(request, found, form, status=400)
    messages.success(request, f"The schedule {form.cleaned_data['name']} is saved.")
    return redirect("jobs:schedules")


def _save(request: HttpRequest, found: Schedule | None, values: dict[str, Any]) -> None:
    if found is None:
        schedules.create_schedule(user=request.user, **values)
    else:
        schedules.change_schedule(found, user=request.user, **values)


def _render(request: HttpRequest, found: Schedule | None, form: ScheduleForm, *, status: int = 200) -> HttpResponse:
    template = "finetuning/_schedule_form.html" if request.htmx else "finetuning/schedule_edit.html"
    return render(request, template, {"form": form, "schedule": found}, status=status)


@require_POST
@curators_only
def switch_schedule(request: HttpRequest, schedule_id: int) -> HttpResponse:
    """`is_enabled` 1 or 0."""
    found = schedules.get_schedule(schedule_id, user=request.user)
    is_enabled = request.POST.get("is_enabled") == "1"
    try:
        schedules.change_schedule(found, user=request.user, is_enabled=is_enabled)
    except ChatError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"{found.name} {'goes on' if is_enabled else 'is paused'}.")
    return redirect("jobs:schedules")


@require_POST
@curators_only
def delete_schedule(request: HttpRequest, schedule_id: int) -> HttpResponse:
    found = schedules.get_schedule(schedule_id, user=request.user)
    schedules.delete_schedule(found)
    messages.success(request, f"The schedule {found.name} is deleted. Its jobs stay.")
    return redirect("jobs:schedules")
