"""Keeps the list of a person's sign-ins fresh without a database write for every page."""

from __future__ import annotations

import time
from collections.abc import Callable

from allauth.usersessions.models import UserSession
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

RECORDED_EVERY = 300.0
MAX_REMEMBERED = 10_000


class LastSeenMiddleware:
    """Each process writes a session's `last_seen_at` at most once in five minutes."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self._recorded: dict[str, float] = {}

    def __call__(self, request: HttpRequest) -> HttpResponse:
        # Asking for a person needs the session, and so the database: only where there is a cookie.
        session_key = request.session.session_key
        if session_key and self._is_due(session_key) and request.user.is_authenticated:
            self._record(request, session_key)
        return self.get_response(request)

    def _is_due(self, session_key: str) -> bool:
        recorded = self._recorded.get(session_key)
        return recorded is None or recorded <= time.monotonic() - RECORDED_EVERY

    def _record(self, request: HttpRequest, session_key: str) -> None:
        if len(self._recorded) >= MAX_REMEMBERED:
            self._recorded.clear()
        self._recorded[session_key] = time.monotonic()
        seen = UserSession.objects.filter(session_key=session_key, user_id=request.user.pk)
        if not seen.update(last_seen_at=timezone.now()):
            UserSession.objects.create_from_request(request)
