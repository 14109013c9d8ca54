"""The root of the JSON API: who may call it, in what shape it refuses, and where its parts hang."""

from __future__ import annotations

from django.http import HttpRequest
from django.urls import path
from ninja.errors import AuthenticationError
from ninja.security import HttpBearer
from ninja.security import SessionAuth as NinjaSessionAuth

from accounts.api import router as me_router
from accounts.models import User
from accounts.services import authenticate_key
from chat.api import router as conversations_router
from chat.api_messages import router as messages_router
from chat.api_usage import router as usage_router
from config.api_docs import ReferencePage
from config.api_errors import add_error_handlers
from config.api_parameters import StrictAPI
from config.api_schema import StrictParser
from finetuning.api.datasets import router as datasets_router
from finetuning.api.jobs import router as jobs_router
from finetuning.api.schedules import router as schedules_router
from finetuning.api.versions import router as versions_router
from models_hub.api import router as models_router


class ApiKeyAuth(HttpBearer):
    """`Authorization: Bearer <api key>`. A wrong key is refused even beside a valid session cookie."""

    def authenticate(self, request: HttpRequest, token: str) -> User:
        key = authenticate_key(token.strip())
        if key is None:
            raise AuthenticationError
        request.user = key.user
        return key.user


class SessionAuth(NinjaSessionAuth):
    """The browser's session. A changing request needs the CSRF token as well (header X-CSRFToken)."""

    def __call__(self, request: HttpRequest) -> User | None:
        # Without a session there is nothing to protect: the answer is 401, not a complaint about a token.
        return super().__call__(request) if request.user.is_authenticated else None


api = StrictAPI(
    title="Dialoop",
    version="1",
    description="Conversations, models and keys of one person: whoever the API key or the session belongs to.",
    urls_namespace="api",
    docs=ReferencePage(),
    auth=[ApiKeyAuth(), SessionAuth()],
    parser=StrictParser(),
)
add_error_handlers(api)
api.add_router("/conversations", conversations_router, tags=["conversations"])
api.add_router("/messages", messages_router, tags=["messages"])
api.add_router("/models", models_router, tags=["models"])
api.add_router("/models", versions_router, tags=["models"])
api.add_router("/datasets", datasets_router, tags=["datasets"])
api.add_router("/me", me_router, tags=["me"])
api.add_router("/usage", usage_router, tags=["usage"])
api.add_router("/jobs", jobs_router, tags=["jobs"])
api.add_router("/schedules", schedules_router, tags=["schedules"])

urlpatterns = [path("", api.urls)]
