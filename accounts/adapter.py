"""How allauth's pages behave here: SIGNUP decides who may come in, and a new password ends what was open before."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core import context
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.usersessions.models import UserSession
from django.forms import BaseForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone

from accounts import second_factor, services
from accounts.models import User
from config.app_settings import get_settings
from models_hub import encryption


class MfaAdapter(DefaultMFAAdapter):
    """The second factor's secret is stored encrypted, as providers' keys are."""

    def encrypt(self, text: str) -> str:
        return encryption.encrypt(text)

    def decrypt(self, encrypted_text: str) -> str:
        return second_factor.decrypt(encrypted_text)


class AccountAdapter(DefaultAccountAdapter):
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return get_settings().signup != "closed"

    def save_user(self, request: HttpRequest, user: User, form: BaseForm, commit: bool = True) -> User:
        if get_settings().signup == "open":
            user.approved_at = timezone.now()
        else:
            user.is_active = False
        return super().save_user(request, user, form, commit)

    def respond_user_inactive(self, request: HttpRequest, user: User) -> HttpResponse:
        """Only reached with the right password, so it tells nobody else that the account exists."""
        return redirect("accounts_waiting" if user.is_waiting else "account_inactive")

    def set_password(self, user: User, password: str) -> None:
        """A new password is how a person throws others out: their sessions and sockets end with it."""
        super().set_password(user, password)
        request: HttpRequest | None = context.request
        kept = request.session.session_key if request is not None and request.user.pk == user.pk else None
        services.end_access(user, keep_session_key=kept)

    def logout(self, request: HttpRequest) -> None:
        services.end_sessions(UserSession.objects.filter(session_key=request.session.session_key or ""))
        super().logout(request)

    def get_password_change_redirect_url(self, request: HttpRequest) -> str:
        return reverse("settings")

    def add_message(self, request: HttpRequest, level: int, *args: Any, **kwargs: Any) -> None:
        """Signing in and out needs no announcement: the page that follows says it."""
        template = kwargs.get("message_template") or (args[0] if args else "")
        if template not in {"account/messages/logged_in.txt", "account/messages/logged_out.txt"}:
            super().add_message(request, level, *args, **kwargs)
