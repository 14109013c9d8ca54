"""What was used: replies, tokens and failures by day and model, read from the messages that are kept."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import Coalesce, TruncDate
from django.utils import timezone

from chat.errors import InvalidError
from chat.models import Message
from models_hub.base import Role

if TYPE_CHECKING:
    from accounts.models import User

MAX_DAYS = 366
# Percentiles are of the newest replies: a page that is looked at must not read a year of them.
TIMED_REPLIES = 5_000


@dataclass(frozen=True)
class UsageRow:
    """`user` is None unless rows are told apart by person."""

    day: date
    model: str
    user: str | None
    replies: int
    failed: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class FirstTokenTimes:
    model: str
    replies: int
    median_ms: int
    p95_ms: int


def default_period(days: int = 30) -> tuple[date, date]:
    today = timezone.now().astimezone(UTC).date()
    return today - timedelta(days=days - 1), today


def list_usage(*, user: User | None, since: date, until: date, by_user: bool = False) -> list[UsageRow]:
    """Newest day first, one query. `user` None: of everybody. Days are in UTC, both ends count.

    Raises InvalidError for a period that ends before it begins or is longer than a year.
    """
    if not timedelta(0) <= until - since < timedelta(days=MAX_DAYS):
        raise InvalidError(f"The period must end on or after its beginning and be {MAX_DAYS} days at most.")
    names = ["day", "model", *(["conversation__owner__username"] if by_user else [])]
    rows = (
        replies_between(since, until, user=user)
        .annotate(day=TruncDate("created_at", tzinfo=UTC))
        .values(*names)
        .annotate(
            replies=Count("pk"),
            failed=Count("pk", filter=Q(status__in=(Message.Status.FAILED, Message.Status.INTERRUPTED))),
            prompt_tokens_total=Coalesce(Sum("prompt_tokens"), 0),
            completion_tokens_total=Coalesce(Sum("completion_tokens"), 0),
        )
        .order_by("-day", *names[1:])
    )
    return [_to_row(row) for row in rows]


def replies_between(since: date, until: date, *, user: User | None = None) -> QuerySet[Message]:
    start = datetime.combine(since, time.min, UTC)
    end = datetime.combine(until, time.min, UTC) + timedelta(days=1)
    rows = Message.objects.filter(role=Role.ASSISTANT, created_at__gte=start, created_at__lt=end)
    return rows if user is None else rows.filter(conversation__owner=user)


def measure_first_tokens(since: date, until: date) -> list[FirstTokenTimes]:
    """By model, over the newest replies that have a time; the most used model first."""
    timed = replies_between(since, until).filter(first_token_ms__isnull=False).order_by("-created_at")
    times: defaultdict[str, list[int]] = defaultdict(list)
    for model, milliseconds in timed.values_list("model", "first_token_ms")[:TIMED_REPLIES]:
        times[model].append(milliseconds)
    ranked = sorted(times.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        FirstTokenTimes(model, len(values), percentile(values, 50), percentile(values, 95)) for model, values in ranked
    ]


def count_failures(since: date, until: date) -> dict[str, int]:
    """How often each error code ended a reply, the most frequent first."""
    rows = replies_between(since, until).exclude(error_code="").values("error_code").annotate(total=Count("pk"))
    return {row["error_code"]: row["total"] for row in rows.order_by("-total", "error_code")}


def percentile(values: list[int], percent: int) -> int:
    """The smallest value that so many per cent do not exceed. `values` is not empty."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def _to_row(row: dict[str, Any]) -> UsageRow:
    return UsageRow(
        day=row["day"],
        model=row["model"],
        user=row.get("conversation__owner__username"),
        replies=row["replies"],
        failed=row["failed"],
        prompt_tokens=row["prompt_tokens_total"],
        completion_tokens=row["completion_tokens_total"],
    )
