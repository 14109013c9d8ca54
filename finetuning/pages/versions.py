"""Pages of a model's versions: which there are, what is known of each, two side by side, and what curators do."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from chat import markdown
from chat.errors import ChatError, ForbiddenError, InvalidError, NotFoundError
from config.streaming import stream_file
from finetuning import versions
from finetuning.access import check_curator, is_curator
from finetuning.versions.files import MERGED, export_name, exported_parts
from finetuning.versions.reports import VersionReport, get_version
from models_hub import selectors, services
from models_hub.base import UnknownModelError
from models_hub.models import PRODUCTION, ModelVersion, RegisteredModel

View = Callable[..., HttpResponseBase]


def _door(view: View, *, for_curators: bool) -> View:
    """Signed in, and the model is one that this person may use; the view gets it instead of its slug."""

    @never_cache
    @login_required
    @wraps(view)
    def door(request: HttpRequest, slug: str, **kwargs: Any) -> HttpResponseBase:
        try:
            model = selectors.get_model(slug, user=request.user)
            if for_curators:
                check_curator(request.user)
            return view(request, model, **kwargs)
        except (UnknownModelError, NotFoundError) as error:
            raise Http404(error.message) from error
        except ForbiddenError as error:
            raise PermissionDenied(error.message) from error

    return door


def for_members(view: View) -> View:
    return _door(view, for_curators=False)


def for_curators(view: View) -> View:
    return _door(view, for_curators=True)


@require_safe
@for_members
def list_page(request: HttpRequest, model: RegisteredModel) -> HttpResponse:
    """Members see which versions there are; curators how each did and what may be done."""
    reports = versions.list_reports(model)
    context: dict[str, Any] = {"model": model, "reports": reports, "is_curator": is_curator(request.user)}
    if context["is_curator"]:
        events = list(versions.list_events(model))
        context |= {
            "events": events,
            "production": next((report for report in reports if PRODUCTION in report.aliases), None),
            "promotion": next((event for event in events if event.alias == PRODUCTION), None),
            "previous": versions.find_previous(model),
        }
    return render(request, "finetuning/versions.html", context)


@require_safe
@for_members
def version_page(request: HttpRequest, model: RegisteredModel, number: int) -> HttpResponse:
    """Members read the model card; the rest is for curators."""
    report = versions.get_report(model, number)
    card = report.lineage.card if report.lineage else ""
    context: dict[str, Any] = {
        "model": model,
        "report": report,
        "version": report.version,
        "card": markdown.render(card) if card else "",
        "is_curator": is_curator(request.user),
    }
    if context["is_curator"]:
        context |= _for_curator(model, report)
    return render(request, "finetuning/version.html", context)


def _for_curator(model: RegisteredModel, report: VersionReport) -> dict[str, Any]:
    return {
        "answers": versions.list_answers(report.evaluation),
        "parts": exported_parts(report.version),
        "why_not": _reason_against(model, report.version),
        "others": model.versions.exclude(pk=report.version.pk).order_by("-number"),
    }


def _reason_against(model: RegisteredModel, version: ModelVersion) -> str:
    """Why it may not be promoted; empty when it may."""
    try:
        services.check_move(model, PRODUCTION, version, "asked only")
    except services.AliasMoveError as error:
        return str(error)
    return ""


@require_safe
@for_curators
def compare(request: HttpRequest, model: RegisteredModel) -> HttpResponse:
    """`?version=3&other=2`; without `version` the newest, without `other` beside production, or else its base."""
    numbers = list(model.versions.order_by("-number").values_list("number", flat=True))
    try:
        version = get_version(model, _number(request, "version", numbers[0] if numbers else 0))
        other = get_version(model, _number(request, "other", 0)) if request.GET.get("other") else None
        found = versions.compare(version, other)
    except InvalidError as error:
        raise Http404(error.message) from error
    context = {
        "model": model,
        "found": found,
        "sides": (found.left, found.right),
        "titles": [_title(side.version, model) for side in (found.left, found.right)],
        "numbers": numbers,
        "is_curator": True,
    }
    return render(request, "finetuning/version_compare.html", context)


def _title(version: ModelVersion, model: RegisteredModel) -> str:
    """Short, for the head of a narrow column; a base may be another model's."""
    return f"Version {version.number}" if version.model_id == model.pk else str(version)


def _number(request: HttpRequest, name: str, default: int) -> int:
    text = request.GET.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidError(f"{name} is the number of a version.")
    return int(text)


@require_safe
@for_curators
def export(request: HttpRequest, model: RegisteredModel, number: int) -> HttpResponseBase:
    version, part = get_version(model, number), request.GET.get("part", MERGED)
    try:
        pieces = versions.export_version(version, part=part)
    except InvalidError as error:
        raise Http404(error.message) from error
    return stream_file(pieces, name=f"{export_name(version, part)}.zip", content_type="application/zip")


@require_POST
@for_curators
def promote(request: HttpRequest, model: RegisteredModel, number: int) -> HttpResponse:
    def act() -> str:
        versions.promote(get_version(model, number), actor=request.user, reason=request.POST.get("reason", ""))
        return f"Version {number} answers from the next message on."

    return _act(request, act, "versions:detail", model.slug, number)


@require_POST
@for_curators
def roll_back(request: HttpRequest, model: RegisteredModel) -> HttpResponse:
    """In one click: who wants to say why may, who does not has said from where."""
    current = request.POST.get("version", "")
    reason = request.POST.get("reason", "").strip() or f"Rolled back from version {current[:9]}."

    def act() -> str:
        seen = int(current) if current.isascii() and current.isdigit() else None
        event = versions.roll_back(model, actor=request.user, reason=reason, current=seen)
        return f"Version {event.to_number} answers again from the next message on."

    return _act(request, act, "versions:list", model.slug)


@require_POST
@for_curators
def retire(request: HttpRequest, model: RegisteredModel, number: int) -> HttpResponse:
    def act() -> str:
        versions.retire(get_version(model, number), actor=request.user)
        return f"Version {number} is retired: nobody can ask it any more."

    return _act(request, act, "versions:detail", model.slug, number)


@require_POST
@for_curators
def delete(request: HttpRequest, model: RegisteredModel, number: int) -> HttpResponse:
    version = get_version(model, number)
    try:
        versions.delete_version(version)
    except ChatError as error:
        messages.error(request, error.message)
        return redirect("versions:detail", model.slug, number)
    messages.success(request, f"Version {number} is deleted.")
    return redirect("versions:list", model.slug)


def _act(request: HttpRequest, act: Callable[[], str], *back: Any) -> HttpResponse:
    """Do it, say how it went, and go back to the page it was asked on."""
    try:
        messages.success(request, act())
    except (ForbiddenError, NotFoundError):
        raise
    except ChatError as error:
        messages.error(request, error.message)
    return redirect(*back)
