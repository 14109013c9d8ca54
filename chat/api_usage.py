"""`/api/usage`: what one used, by day and model; for admins also what everybody used."""

from __future__ import annotations

import datetime

from django.http import HttpRequest
from ninja import Query, Router, Schema
from pydantic import Field

from chat import usage
from chat.errors import ForbiddenError
from config.api_lists import NEXT, ListQuery, cut_list

router = Router()


FIRST_DAY, LAST_DAY = datetime.date(2000, 1, 1), datetime.date(2999, 12, 31)


class UsageQuery(ListQuery):
    since: datetime.date | None = Field(
        None, ge=FIRST_DAY, le=LAST_DAY, description="First day (UTC). Default: 30 days up to `until`."
    )
    until: datetime.date | None = Field(
        None, ge=FIRST_DAY, le=LAST_DAY, description="Last day (UTC), itself included. Default: today."
    )
    everybody: bool = Field(False, description="For admins: of all people, told apart by `user`.")


class UsageRow(Schema):
    day: datetime.date
    model: str
    user: str | None = Field(description="Only with `everybody`.")
    replies: int
    failed: int = Field(description="Of the replies, those that failed or were interrupted.")
    prompt_tokens: int
    completion_tokens: int


class UsageReport(Schema):
    since: datetime.date
    until: datetime.date
    items: list[UsageRow]
    next_cursor: str | None = NEXT


@router.get("", response=UsageReport, summary="What was used")
def get_usage(request: HttpRequest, query: Query[UsageQuery]) -> dict[str, object]:
    """Replies and tokens by day and model, newest day first. Purged conversations are no longer in it."""
    if query.everybody and not request.auth.is_superuser:
        raise ForbiddenError("Only an admin may see what everybody used.")
    until = query.until or usage.default_period()[1]
    since = query.since or until - datetime.timedelta(days=29)
    user = None if query.everybody else request.auth
    items = usage.list_usage(user=user, since=since, until=until, by_user=query.everybody)
    page = cut_list(items, query, key=lambda row: (row.day.isoformat(), row.model, row.user))
    return {"since": since, "until": until, **page}
