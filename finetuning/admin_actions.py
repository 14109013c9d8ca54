"""What is done from the lists of the admin: a service is called for each row, or a page of the loop opens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.forms import ActionForm
from unfold.widgets import UnfoldAdminTextInputWidget

from chat.errors import ChatError
from finetuning import versions
from models_hub import selectors
from models_hub.base import UnknownModelError
from models_hub.models import ModelVersion

REASON = "Reason, to promote or roll back"


def run_on_each(request: HttpRequest, rows: Iterable[Model], act: Callable[[Any], object], done: str) -> None:
    """Call the service for each row; one that is refused does not stop the others, and says why."""
    count = 0
    for row in rows:
        try:
            act(row)
        except ChatError as error:
            messages.error(request, f"{row}: {error.message}")
        else:
            count += 1
    if count:
        messages.success(request, f"{done}: {count}.")


def lead_to(page: str, *arguments: object, **query: object) -> HttpResponse:
    return redirect(f"{reverse(page, args=arguments)}?{urlencode(query)}".removesuffix("?"))


class ReasonForm(ActionForm):
    reason = forms.CharField(
        required=False,
        max_length=500,
        label="",
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": REASON, "aria-label": REASON}),
    )


class VersionActions:
    """For rows that stand for versions."""

    action_form = ReasonForm
    actions = ("promote", "roll_back", "retire", "compare")

    @admin.action(description="Promote to production", permissions=["view"])
    def promote(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        how: dict[str, Any] = {"actor": request.user, "reason": request.POST.get("reason", "")}
        run_on_each(request, _versions(rows), lambda version: versions.promote(version, **how), "Promoted")

    @admin.action(description="Roll production back", permissions=["view"])
    def roll_back(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        """Once for each model, from the version that is chosen: nothing happens when another is in production."""
        how: dict[str, Any] = {"actor": request.user, "reason": request.POST.get("reason", "")}

        def act(version: ModelVersion) -> object:
            return versions.roll_back(version.model, current=version.number, **how)

        run_on_each(request, _versions(rows), act, "Rolled back")

    @admin.action(description="Retire", permissions=["view"])
    def retire(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        run_on_each(request, _versions(rows), lambda version: versions.retire(version, actor=request.user), "Retired")

    @admin.action(description="Compare", permissions=["view"])
    def compare(self, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        """Two of a model side by side; one beside what is in production, or else its base."""
        chosen = sorted(_versions(rows), key=lambda version: -version.number)
        slugs = {version.model.slug for version in chosen}
        if len(chosen) not in (1, 2) or len(slugs) != 1:
            messages.error(request, "Choose one version, or two of the same model.")
            return None
        [slug], numbers = slugs, [version.number for version in chosen]
        try:  # the page itself would only say that it is not there
            selectors.get_model(slug, user=request.user)
            versions.compare(*chosen)
        except (ChatError, UnknownModelError) as error:
            messages.error(request, error.message)
            return None
        return lead_to("versions:compare", slug, **dict(zip(("version", "other"), numbers, strict=False)))


def _versions(rows: QuerySet[Any]) -> list[ModelVersion]:
    if rows.model is ModelVersion:
        return list(rows.select_related("model"))
    return [row.version for row in rows.select_related("version__model")]
