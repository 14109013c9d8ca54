"""The chat pages and their fragments. Doors: check, one call, render. The live part is the socket's and the API's."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render as render_page
from django.views.decorators.http import require_safe

from chat import markdown
from chat.errors import InvalidError, NotFoundError
from chat.feedback import COMMENT_LIMIT, TAGS
from chat.models import ENDED, Conversation, Message
from chat.search import search_conversations
from chat.selectors import Branch, get_branch, get_conversation, list_conversations
from chat.serializers import conversation_to_dict
from config.app_settings import get_settings
from models_hub.base import Role
from models_hub.selectors import list_models


@require_safe
@login_required
def new_conversation(request: HttpRequest) -> HttpResponse:
    """`chat/conversation.html` with `conversation` None; the rest as below, without `branch` and `before`.

    `page_data` has `wanted_model`, the model or version (`slug@3`) that `?model=` names, or "".
    """
    page = _page(request, None)
    wanted = request.GET.get("model", "")
    slugs = {model["slug"] for model in page["page_data"]["models"]}
    page["page_data"]["wanted_model"] = wanted if slugs & {wanted, wanted.rpartition("@")[0]} else ""
    return render_page(request, "chat/conversation.html", page)


@require_safe
@login_required
def conversation(request: HttpRequest, conversation_id: UUID) -> HttpResponse:
    """`chat/conversation.html`.

    `conversation`; `conversations` and `next_cursor` for the sidebar; `branch`, the newest messages, oldest first, each
    with `sibling_ids` and `can_continue`; `before`, the id to ask `chat:messages` for what is above them, or None;
    `page_data` for json_script: conversation, models, default_model, max_message_chars, user_id, training_consent,
    focus (the message that `?message=` names, which then is among those shown).
    """
    shown = _find(request, conversation_id)
    focus = _id_from(request, "message")
    page = _page(request, shown)
    page["page_data"]["focus"] = str(focus) if focus else None
    return render_page(request, "chat/conversation.html", page | _branch(shown, through=focus))


@require_safe
@login_required
def messages(request: HttpRequest, conversation_id: UUID) -> HttpResponse:
    """Fragment `chat/_messages.html`: `conversation`, `branch`, `before`. The newest without `?before=<id>`."""
    shown = _find(request, conversation_id)
    context = {"conversation": shown, **_branch(shown, before=_id_from(request, "before"))}
    return render_page(request, "chat/_messages.html", context)


@require_safe
@login_required
def search(request: HttpRequest) -> HttpResponse:
    """`chat/search.html`; for htmx its fragment `chat/_search_results.html`.

    `query`; `results`, each with `conversation`, `message` (None: found by its title), and `title` and `snippet` as
    parts with `text` and `is_hit`; `next_cursor`, for `?q=..&cursor=..`, or None.
    """
    query = request.GET.get("q", "")
    try:
        page = search_conversations(user=request.user, query=query, cursor=request.GET.get("cursor"))
    except InvalidError as error:
        raise Http404(error.message) from error
    template = "chat/_search_results.html" if request.htmx else "chat/search.html"
    context = {"query": query, "results": page.results, "next_cursor": page.next_cursor}
    return render_page(request, template, context)


def _find(request: HttpRequest, conversation_id: UUID) -> Conversation:
    try:
        return get_conversation(conversation_id, user=request.user)
    except NotFoundError as error:
        raise Http404(error.message) from error


def _id_from(request: HttpRequest, name: str) -> UUID | None:
    text = request.GET.get(name)
    try:
        return UUID(text) if text else None
    except ValueError as error:
        raise Http404(f"{name} is not an id.") from error


def _page(request: HttpRequest, shown: Conversation | None) -> dict[str, Any]:
    sidebar = list_conversations(user=request.user)
    settings = get_settings()
    page_data = {
        "conversation": conversation_to_dict(shown) if shown else None,
        "models": [asdict(card) for card in list_models(user=request.user)],
        "default_model": request.user.default_model or settings.default_model,
        "max_message_chars": settings.max_message_chars,
        "user_id": request.user.id,
        "training_consent": request.user.training_consent_at is not None,
    }
    return {
        "conversation": shown,
        "conversations": sidebar.items,
        "next_cursor": sidebar.next_cursor,
        "page_data": page_data,
        "feedback_tags": TAGS.items(),
        "comment_limit": COMMENT_LIMIT,
    }


def _branch(shown: Conversation, *, before: UUID | None = None, through: UUID | None = None) -> dict[str, Any]:
    try:
        branch: Branch = get_branch(shown, before=before, through=through)
    except NotFoundError as error:
        raise Http404(error.message) from error
    for message in branch.messages:
        _fill_html(message)
    return {"branch": branch.messages, "before": branch.before}


def _fill_html(message: Message) -> None:
    """No HTML is stored of a correction, and of a reply that came from no stream (imported, made by a program)."""
    if message.role == Role.ASSISTANT and message.status in ENDED and message.content and not message.html:
        message.html = markdown.render(message.content)
    if correction := getattr(message, "correction", None):
        message.correction_html = markdown.render(correction.content)
