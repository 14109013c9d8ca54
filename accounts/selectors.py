"""What a person may see of his own account, and an admin of everybody's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from allauth.usersessions.models import UserSession
from django.db.models import QuerySet

from accounts.devices import describe_device
from accounts.models import ApiKey, User
from chat.errors import NotFoundError


@dataclass(frozen=True)
class SignIn:
    """A browser in which this person is signed in."""

    id: int
    device: str
    ip: str
    created_at: datetime
    last_seen_at: datetime
    is_current: bool


def list_keys(*, user: User) -> QuerySet[ApiKey]:
    return user.api_keys.filter(revoked_at=None)


def get_key(key_id: int, *, user: User) -> ApiKey:
    key = list_keys(user=user).filter(pk=key_id).first()
    if key is None:
        raise NotFoundError("There is no such key.")
    return key


def list_sign_ins(*, user: User, current_session_key: str | None) -> list[SignIn]:
    """The current one first, then the latest seen. Sessions that have expired are not listed."""
    sessions = [session for session in UserSession.objects.filter(user=user) if session.exists()]
    sign_ins = [_to_sign_in(session, current_session_key) for session in sessions]
    return sorted(sign_ins, key=lambda sign_in: (not sign_in.is_current, -sign_in.last_seen_at.timestamp()))


def _to_sign_in(session: UserSession, current_session_key: str | None) -> SignIn:
    return SignIn(
        id=session.pk,
        device=describe_device(session.user_agent),
        ip=session.ip,
        created_at=session.created_at,
        last_seen_at=session.last_seen_at,
        is_current=session.session_key == current_session_key,
    )


def get_session(session_id: int, *, user: User) -> UserSession:
    session = UserSession.objects.filter(pk=session_id, user=user).first()
    if session is None:
        raise NotFoundError("There is no such sign-in.")
    return session


def count_waiting() -> int:
    return User.objects.filter(is_active=False, approved_at=None).count()
