"""The page that shows which models there are and which of them answer."""

from __future__ import annotations

from itertools import groupby

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from config.app_settings import get_settings
from models_hub.selectors import list_models


@require_safe
@login_required
def models(request: HttpRequest) -> HttpResponse:
    cards = list_models(user=request.user)
    connections = [(name, list(group)) for name, group in groupby(cards, key=lambda card: card.connection)]
    context = {
        "connections": connections,
        "default_model": request.user.default_model or get_settings().default_model,
    }
    return render(request, "models_hub/models.html", context)
