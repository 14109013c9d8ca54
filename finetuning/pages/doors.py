"""What every page about datasets and trainings begins with: who may open it, and what a refusal looks like."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django_htmx.http import HttpResponseClientRedirect

from chat.errors import ForbiddenError, InvalidError, NotFoundError
from finetuning.access import check_curator

View = Callable[..., HttpResponse]


def curators_only(view: View) -> View:
    """Signed in and a curator; what is not there is a page that says so."""

    @never_cache
    @wraps(view)
    def door(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.htmx and not request.user.is_authenticated:
            # htmx would follow the redirect and put the sign-in page into a corner of this one.
            return HttpResponseClientRedirect(redirect_to_login(request.htmx.current_url_abs_path or "/").url)
        return _checked(request, *args, **kwargs)

    @login_required
    def _checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            check_curator(request.user)
            return view(request, *args, **kwargs)
        except ForbiddenError as error:
            raise PermissionDenied(error.message) from error
        except NotFoundError as error:
            raise Http404(error.message) from error
        except InvalidError as error:  # an address that somebody has changed by hand, such as a broken cursor
            if request.method == "POST":
                raise
            raise Http404(error.message) from error

    return door
