"""Search through the titles and the text of one's own conversations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import connection
from django.db.models import Exists, OuterRef, Q, QuerySet

from chat.cursors import decode_cursor, encode_cursor
from chat.models import Conversation, Message
from chat.search_index import is_indexed, matching_message_ids
from chat.search_query import SearchQuery, parse_query
from chat.selectors import MAX_PAGE_SIZE, owned_conversations

if TYPE_CHECKING:
    from accounts.models import User

PAGE_SIZE = 20
SNIPPET_BEFORE = 60
SNIPPET_CHARS = 220


@dataclass(frozen=True)
class SnippetPart:
    text: str
    is_hit: bool


@dataclass(frozen=True)
class SearchResult:
    """A conversation that was found, by its title or by its newest message with the words."""

    conversation: Conversation
    message: Message | None
    title: list[SnippetPart]
    snippet: list[SnippetPart]


@dataclass(frozen=True)
class SearchPage:
    results: list[SearchResult]
    next_cursor: str | None


def search_conversations(*, user: User, query: str, cursor: str | None = None, limit: int = PAGE_SIZE) -> SearchPage:
    """Newest first. Three queries. No query is an error; raises InvalidError only for a made-up cursor."""
    parsed = parse_query(query)
    limit = max(1, min(limit, MAX_PAGE_SIZE))
    older_than = decode_cursor(cursor, datetime, UUID) if cursor else None
    if parsed.is_empty:
        return SearchPage([], None)
    found = _find(parsed, user)
    if older_than:
        updated_at, last_id = older_than
        found = found.filter(Q(updated_at__lt=updated_at) | Q(updated_at=updated_at, id__lt=last_id))
    rows = list(found.order_by("-updated_at", "-id")[: limit + 1])
    shown = rows[:limit]
    next_cursor = encode_cursor(shown[-1].updated_at, shown[-1].id) if len(rows) > limit else None
    return SearchPage(_make_results(shown, parsed, user), next_cursor)


def _find(query: SearchQuery, user: User) -> QuerySet[Conversation]:
    found = owned_conversations(user=user)
    for word in query.titles:
        found = found.filter(title__icontains=word)
    for slug in query.models:
        found = found.filter(Q(model=slug) | Exists(Message.objects.filter(conversation=OuterRef("pk"), model=slug)))
    span = _span(query, "created_at", "updated_at")
    if not query.terms:
        return found.filter(span)
    in_title = _all(Q(title__icontains=term) for term in query.terms)
    return found.filter(Q(id__in=_find_messages(query, user).values("conversation")) | (in_title & span))


def _find_messages(query: SearchQuery, user: User) -> QuerySet[Message]:
    vendor = connection.vendor
    messages = Message.objects.filter(conversation__owner=user).filter(_span(query, "created_at", "created_at"))
    indexed = [term for term in query.terms if is_indexed(term, vendor)]
    if indexed:
        messages = messages.filter(id__in=matching_message_ids(indexed, vendor))
    return messages.filter(_all(Q(content__icontains=term) for term in query.terms if term not in indexed))


def _span(query: SearchQuery, first: str, last: str) -> Q:
    before = Q(**{f"{first}__lt": query.before}) if query.before else Q()
    return before & (Q(**{f"{last}__gte": query.after}) if query.after else Q())


def _all(conditions: Iterable[Q]) -> Q:
    return reduce(and_, conditions, Q())


def _make_results(conversations: list[Conversation], query: SearchQuery, user: User) -> list[SearchResult]:
    hits = _find_newest_hits(conversations, query, user) if query.terms else {}
    results = []
    for conversation in conversations:
        message = hits.get(conversation.id)
        title = mark(conversation.title, (*query.terms, *query.titles))
        snippet = mark(_cut(message.content, query.terms), query.terms) if message else []
        results.append(SearchResult(conversation, message, title, snippet))
    return results


def _find_newest_hits(conversations: list[Conversation], query: SearchQuery, user: User) -> dict[UUID, Message]:
    """Of each conversation the newest message that fits; only of these are the texts loaded."""
    hits = _find_messages(query, user).filter(conversation__in=conversations).order_by("created_at", "id")
    newest = dict(hits.values_list("conversation_id", "id"))
    return {message.conversation_id: message for message in Message.objects.in_bulk(list(newest.values())).values()}


def mark(text: str, terms: Iterable[str]) -> list[SnippetPart]:
    """The text in parts, those that were looked for marked."""
    pattern = _pattern(terms)
    if pattern is None:
        return [SnippetPart(text, False)] if text else []
    # Splitting by a group leaves what matched at the odd places.
    return [SnippetPart(part, place % 2 == 1) for place, part in enumerate(pattern.split(text)) if part]


def _pattern(terms: Iterable[str]) -> re.Pattern[str] | None:
    words = sorted(set(terms), key=len, reverse=True)
    return re.compile(f"({'|'.join(re.escape(word) for word in words)})", re.IGNORECASE) if words else None


def _cut(text: str, terms: tuple[str, ...]) -> str:
    """The surroundings of the first hit, as one line."""
    found = (pattern := _pattern(terms)) and pattern.search(text)
    start = max(0, found.start() - SNIPPET_BEFORE) if found else 0
    cut = " ".join(text[start : start + SNIPPET_CHARS].split())
    return f"{'…' if start else ''}{cut}{'…' if start + SNIPPET_CHARS < len(text) else ''}"
