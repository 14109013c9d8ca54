"""Everything that changes a person, a key or a sign-in, for pages, API, admin and commands alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import timedelta

from allauth.account.forms import default_token_generator
from allauth.account.models import EmailAddress
from allauth.account.utils import user_pk_to_url_str
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from accounts.models import ApiKey, User, hash_key
from chat.broadcast import end_sockets
from chat.errors import InvalidError, QuotaExceededError
from chat.nudges import nudge_withdrawal
from config.app_settings import AppSettings, get_settings
from config.storable import is_storable
from models_hub.selectors import list_models

MAX_API_KEYS = 50
KEY_USE_RECORDED_EVERY = timedelta(minutes=1)


def create_user(username: str, *, email: str, password: str | None, is_admin: bool = False, check: bool = True) -> User:
    """A person who may sign in at once, whatever SIGNUP says. Without a password only a link lets him in.

    Raises InvalidError, with a sentence for each wrong field.
    """
    email = email.strip().lower()
    user = User(
        username=User.normalize_username(username.strip()),
        email=email,
        is_staff=is_admin,
        is_superuser=is_admin,
        approved_at=timezone.now(),
    )
    _require_valid(user, password=password if check else None)
    if password is None:
        user.set_unusable_password()
    else:
        user.set_password(password)
    with transaction.atomic():
        user.save()
        set_sign_in_email(user)
    return user


def admit(user: User) -> None:
    """Mark a person an admin makes as let in; saving is up to the caller."""
    user.is_active, user.approved_at = True, timezone.now()


def set_sign_in_email(user: User) -> None:
    """allauth keeps addresses in its own table, and looks there when somebody signs in or forgot a password."""
    EmailAddress.objects.filter(user=user).exclude(email__iexact=user.email).delete()
    EmailAddress.objects.update_or_create(
        user=user, email=user.email.lower(), defaults={"primary": True, "verified": True}
    )


def _require_valid(user: User, *, password: str | None) -> None:
    errors: dict[str, str] = {}
    try:
        user.clean_fields(exclude=["password"])
    except ValidationError as error:
        errors = {name: " ".join(messages) for name, messages in error.message_dict.items()}
    # Both are compared without regard to case when somebody signs in.
    if "username" not in errors and User.objects.filter(username__iexact=user.username).exists():
        errors["username"] = "A user with that username already exists."
    if "email" not in errors and User.objects.filter(email__iexact=user.email).exists():
        errors["email"] = "A user with that e-mail address already exists."
    if password is not None:
        try:
            validate_password(password, user)
        except ValidationError as error:
            errors["password"] = " ".join(error.messages)
    if errors:
        raise InvalidError(" ".join(errors.values()), **errors)


def approve_user(user: User) -> bool:
    """Let somebody in who waits or was suspended. False when he was in already."""
    changed = User.objects.filter(pk=user.pk, is_active=False).update(is_active=True, approved_at=timezone.now())
    user.refresh_from_db(fields=["is_active", "approved_at"])
    return bool(changed)


def reject_user(user: User) -> bool:
    """Remove somebody who waits for approval, so that the name is free again. False for anybody who was ever in."""
    deleted, _ = User.objects.filter(pk=user.pk, is_active=False, approved_at=None, last_login=None).delete()
    return bool(deleted)


def deactivate_user(user: User) -> None:
    """Suspend: no sign-in, every session and socket ends, keys stop working. Raises InvalidError for the last admin."""
    with transaction.atomic():
        require_another_admin(user)
        # Somebody who was never approved leaves the queue, too: he is suspended, not waiting.
        User.objects.filter(pk=user.pk, approved_at=None).update(approved_at=timezone.now())
        User.objects.filter(pk=user.pk).update(is_active=False)
        end_access(user)
    user.refresh_from_db(fields=["is_active", "approved_at"])


def delete_user(user: User) -> None:
    """With everything that is his. Raises InvalidError for the last admin."""
    with transaction.atomic():
        require_another_admin(user)
        end_access(user)
        user.delete()
        nudge_withdrawal()


def remove_second_factor(user: User) -> bool:
    """For somebody who lost the phone and the recovery codes."""
    deleted, _ = Authenticator.objects.filter(user=user).delete()
    return bool(deleted)


def require_another_admin(user: User) -> None:
    admins = User.objects.filter(is_superuser=True, is_active=True)
    if user.is_superuser and user.is_active and not admins.exclude(pk=user.pk).exists():
        raise InvalidError("This is the only admin: make another person an admin first.")


def end_access(user: User, *, keep_session_key: str | None = None) -> None:
    """End this person's sessions, but for the one to keep, and all sockets: a page still signed in reconnects."""
    end_sessions(UserSession.objects.filter(user=user).exclude(session_key=keep_session_key or ""))
    end_sockets(user_id=user.pk)


def end_sessions(sessions: Iterable[UserSession]) -> int:
    """Sign these sessions out at once, and close the sockets they opened."""
    ended = 0
    for session in sessions:
        end_sockets(session_key_hash=hash_session_key(session.session_key))
        session.end()
        ended += 1
    return ended


def hash_session_key(session_key: str) -> str:
    """What a socket is known by: the key itself would let anybody who reads it sign in."""
    return hashlib.sha256(session_key.encode()).hexdigest()


def make_reset_link(user: User) -> str:
    """The path of a page that sets this person's password, once and within PASSWORD_RESET_TIMEOUT."""
    parts = {"uidb36": user_pk_to_url_str(user), "key": default_token_generator.make_token(user)}
    return reverse("account_reset_password_from_key", kwargs=parts)


def ensure_first_admin(app_settings: AppSettings | None = None) -> str | None:
    """Make the first admin if there is none; without DJANGO_SUPERUSER_PASSWORD, return the path of his one-time link.

    As long as nobody has used the link, each call returns a fresh one. Raises InvalidError for unusable variables.
    """
    chosen = app_settings or get_settings()
    admins = User.objects.filter(is_superuser=True, is_active=True)
    if not admins.exists():
        name = chosen.superuser_username or "admin"
        email = chosen.superuser_email or f"{name}@localhost"
        password = chosen.superuser_password or None
        # What the operator wrote into the environment is his choice: no rule about its strength.
        create_user(name, email=email, password=password, is_admin=True, check=False)
    admin = admins.order_by("pk").first()
    if admin is None or admin.has_usable_password() or admins.count() > 1:
        return None
    return make_reset_link(admin)


def set_training_consent(user: User, *, agrees: bool) -> bool:
    """Whether his conversations may be trained on. False when he had said so already.

    When he no longer agrees, what datasets hold of him is cleared within a minute.
    """
    with transaction.atomic():
        unchanged = User.objects.filter(pk=user.pk, training_consent_at__isnull=agrees)
        changed = unchanged.update(training_consent_at=timezone.now() if agrees else None)
        if changed and not agrees:
            nudge_withdrawal()
    user.refresh_from_db(fields=["training_consent_at"])
    return bool(changed)


def update_profile(
    user: User,
    *,
    name: str | None = None,
    theme: str | None = None,
    default_model: str | None = None,
    training_consent: bool | None = None,
) -> User:
    """Change what is given. Raises InvalidError naming each wrong field; then nothing is changed."""
    errors: dict[str, str] = {}
    if name is not None:
        user.first_name, user.last_name = " ".join(name.split()), ""
        if not is_storable(name):
            errors["name"] = "The name contains a character that cannot be stored."
    if theme is not None:
        user.theme = theme
    if default_model is not None:
        user.default_model = default_model
        if default_model and not _may_use_model(user, default_model):
            errors["default_model"] = "There is no such model for you."
    try:
        # A model's slug may hold dots and slashes, which Django's own idea of a slug does not allow.
        user.clean_fields(exclude=["password", "email", "username", "default_model"])
    except ValidationError as error:
        renamed = {"first_name": "name"}
        errors |= {renamed.get(field, field): " ".join(texts) for field, texts in error.message_dict.items()}
    if errors:
        user.refresh_from_db(fields=["first_name", "last_name", "theme", "default_model"])
        raise InvalidError(" ".join(errors.values()), **errors)
    with transaction.atomic():
        user.save(update_fields=["first_name", "last_name", "theme", "default_model"])
        if training_consent is not None:
            set_training_consent(user, agrees=training_consent)
    return user


def _may_use_model(user: User, slug: str) -> bool:
    return any(card.slug == slug for card in list_models(user=user))


def create_key(user: User, *, name: str) -> tuple[ApiKey, str]:
    """A new key and its plain text, shown once. Raises InvalidError for a bad name, QuotaExceededError for too many."""
    name = " ".join(name.split())
    if not name or len(name) > 100 or not is_storable(name):
        sentence = "Give the key a name of 1 to 100 characters."
        raise InvalidError(sentence, name=sentence)
    if user.api_keys.filter(revoked_at=None).count() >= MAX_API_KEYS:
        raise QuotaExceededError(f"You have {MAX_API_KEYS} keys; revoke one first.")
    return ApiKey.create_for(user, name=name)


def revoke_key(key: ApiKey) -> bool:
    """End a key and the sockets opened with it. False when it had ended already."""
    return revoke_keys(ApiKey.objects.filter(pk=key.pk)) == 1


def revoke_keys(keys: Iterable[ApiKey]) -> int:
    revoked = 0
    with transaction.atomic():
        for key in keys:
            if ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=timezone.now()):
                end_sockets(api_key_id=key.pk)
                revoked += 1
    return revoked


def authenticate_key(plain: str) -> ApiKey | None:
    """The usable key with this text, its user loaded; None for an unknown, revoked or suspended one."""
    key = ApiKey.objects.usable().select_related("user").filter(key_hash=hash_key(plain)).first()
    if key is not None:
        _record_use(key)
    return key


def _record_use(key: ApiKey) -> None:
    now = timezone.now()
    if key.last_used_at is None or key.last_used_at <= now - KEY_USE_RECORDED_EVERY:
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=now)
