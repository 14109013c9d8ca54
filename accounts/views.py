"""The settings page, which works without JavaScript, and the page for somebody who waits for approval."""

from __future__ import annotations

from allauth.mfa.utils import is_mfa_enabled
from allauth.usersessions.models import UserSession
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from accounts import selectors, services
from accounts.forms import NewKeyForm, ProfileForm
from accounts.models import User
from accounts.requests import PersonRequest
from chat.errors import ChatError, InvalidError, NotFoundError
from config.app_settings import get_settings
from models_hub.selectors import list_models

TAKEN_BACK = "You no longer allow training. What datasets hold of your conversations is being removed."


@require_GET
def waiting(request: HttpRequest) -> HttpResponse:
    return render(request, "account/waiting.html")


@login_required
@never_cache
@require_GET
def settings_page(request: PersonRequest) -> HttpResponse:
    return _render_settings(request)


def _render_settings(request: PersonRequest, *, status: int = 200, **replaced: object) -> HttpResponse:
    user = request.user
    context = {
        "profile_form": _profile_form(user),
        "key_form": NewKeyForm(prefix="key"),
        "keys": selectors.list_keys(user=user),
        "sign_ins": selectors.list_sign_ins(user=user, current_session_key=request.session.session_key),
        "has_second_factor": is_mfa_enabled(user),
        **replaced,
    }
    return render(request, "accounts/settings.html", context, status=status)


def _profile_form(user: User, data: object = None) -> ProfileForm:
    initial = {"name": user.get_full_name(), "theme": user.theme, "default_model": user.default_model}
    return ProfileForm(data, initial=initial, model_choices=_model_choices(user))


def _model_choices(user: User) -> list[tuple[str, str]]:
    cards = list_models(user=user)
    names = {card.slug: card.name for card in cards}
    default = get_settings().default_model
    choices = [("", f"The installation's default ({names.get(default, default)})")]
    choices += [(card.slug, card.name if card.is_available else f"{card.name} (not available now)") for card in cards]
    if user.default_model and user.default_model not in names:
        choices.append((user.default_model, f"{user.default_model} (no longer offered)"))
    return choices


@login_required
@require_POST
def save_profile(request: PersonRequest) -> HttpResponse:
    form = _profile_form(request.user, request.POST)
    if form.is_valid():
        # An unchanged model is not asked about again: it may have been withdrawn since it was chosen.
        changes = {name: form.cleaned_data[name] for name in {"name", *form.changed_data}}
        try:
            services.update_profile(request.user, **changes)
        except InvalidError as error:
            for field, sentence in error.fields.items():
                form.add_error(field, str(sentence))
        else:
            messages.success(request, "Your settings are saved.")
            return redirect("settings")
    return _render_settings(request, status=400, profile_form=form)


@login_required
@require_POST
def save_training_consent(request: PersonRequest) -> HttpResponse:
    agrees = request.POST.get("agrees") == "yes"
    if services.set_training_consent(request.user, agrees=agrees):
        messages.success(request, "Thank you. Your conversations may be used for training." if agrees else TAKEN_BACK)
    return redirect(f"{reverse('settings')}#training")


@login_required
@never_cache
@require_POST
def create_key(request: PersonRequest) -> HttpResponse:
    """Answers with the page itself, not a redirect: the key is nowhere kept from where it could be shown again."""
    form = NewKeyForm(request.POST, prefix="key")
    if form.is_valid():
        try:
            key, plain = services.create_key(request.user, name=form.cleaned_data["name"])
        except ChatError as error:
            form.add_error("name", error.message)
        else:
            return _render_settings(request, new_key=key, new_key_text=plain)
    return _render_settings(request, status=400, key_form=form)


@login_required
@require_POST
def revoke_key(request: PersonRequest, key_id: int) -> HttpResponse:
    try:
        key = selectors.get_key(key_id, user=request.user)
    except NotFoundError as error:
        raise Http404 from error
    services.revoke_key(key)
    messages.success(request, f"The key “{key.name}” no longer works.")
    return redirect("settings")


@login_required
@require_POST
def end_sign_in(request: PersonRequest, session_id: int) -> HttpResponse:
    try:
        session = selectors.get_session(session_id, user=request.user)
    except NotFoundError as error:
        raise Http404 from error
    services.end_sessions([session])
    messages.success(request, "That sign-in has ended.")
    return redirect("settings")


@login_required
@require_POST
def end_other_sign_ins(request: PersonRequest) -> HttpResponse:
    others = UserSession.objects.filter(user=request.user).exclude(session_key=request.session.session_key)
    ended = services.end_sessions(others)
    messages.success(request, f"Ended {ended} other sign-in{'' if ended == 1 else 's'}.")
    return redirect("settings")
