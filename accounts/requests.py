"""What a view may count on once its door has let somebody in. For the type checker; nothing is made of these."""

from __future__ import annotations

from django.http import HttpRequest

from accounts.models import User


class PersonRequest(HttpRequest):
    """Behind `login_required`."""

    user: User


class ApiRequest(HttpRequest):
    """Behind the API's authentication: `auth` is whoever the key or the session belongs to."""

    auth: User
