"""A person's own part in training, for the settings page. Open to everybody who is signed in, about himself."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from finetuning.conversations.contributions import get_contributions


@require_safe
@login_required
@never_cache
def contributions(request: HttpRequest) -> HttpResponse:
    """`finetuning/contributions.html`; for htmx its fragment `finetuning/_contributions.html`: `contributions`."""
    template = "finetuning/_contributions.html" if request.htmx else "finetuning/contributions.html"
    return render(request, template, {"contributions": get_contributions(user=request.user)})
