"""Who opens a socket: a browser session or an API key. A foreign origin is refused before the handshake is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from channels.security.websocket import WebsocketDenier
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest
from django.http.cookie import parse_cookie
from django.http.request import split_domain_port, validate_host
from django.utils.module_loading import import_string

from accounts.services import authenticate_key, hash_session_key
from chat.replies.database import writer
from chat.replies.start import Asker
from config.app_settings import get_settings


@dataclass(frozen=True)
class SocketAccess:
    asker: Asker
    session_key_hash: str = ""


class SocketAccessMiddleware:
    """Puts `access` into the scope: None for somebody who is not signed in."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._deny = WebsocketDenier.as_asgi()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        headers = {name.decode("latin1"): value.decode("latin1") for name, value in scope["headers"]}
        if not is_own_origin(headers):
            return await self._deny(scope, receive, send)
        access = await writer.run(find_access, headers)
        return await self._inner(scope | {"access": access}, receive, send)


def is_own_origin(headers: dict[str, str]) -> bool:
    """The page that opens a socket must be ours. Programs send no Origin; a browser always does."""
    host = headers.get("host", "")
    origin = headers.get("origin")
    try:
        if not validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS):
            return False
        return origin is None or urlsplit(origin).netloc == host or origin == get_settings().public_url
    except ValueError:  # half an IPv6 address: no browser sends it
        return False


def find_access(headers: dict[str, str]) -> SocketAccess | None:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":  # any other is for somebody in front of us, as for the API
        api_key = authenticate_key(key.strip())
        return api_key and SocketAccess(Asker(api_key.user_id, api_key.id))
    session_key = parse_cookie(headers.get("cookie", "")).get(settings.SESSION_COOKIE_NAME)
    if not session_key:
        return None
    request = HttpRequest()
    request.session = _session(session_key)
    user = get_user(request)
    if not user.is_authenticated or not user.is_active:
        return None
    return SocketAccess(Asker(user.pk, session_key=session_key), hash_session_key(session_key))


def _session(session_key: str) -> SessionBase:
    return import_string(f"{settings.SESSION_ENGINE}.SessionStore")(session_key)
