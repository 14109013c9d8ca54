"""Typed, checked readers over django-environ. Only `config/settings.py` uses them."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import environ
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")
GENERATED_SECRETS = "secrets.env"


class Environment:
    """The process environment over `.env`, over the secrets generated at set-up. Environment wins."""

    def __init__(self, *files: Path) -> None:
        self._env = environ.Env()
        for file in files:
            self.add_file(file)

    def add_file(self, file: Path) -> None:
        if file.is_file():
            environ.Env.read_env(str(file), overwrite=False)

    def text(self, name: str, default: str = "") -> str:
        return self._env.str(name, default).strip()

    def texts(self, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A comma list; blanks around and between items are dropped."""
        raw = self._env.str(name, ",".join(default))
        return tuple(item.strip() for item in raw.split(",") if item.strip())

    def flag(self, name: str, default: bool) -> bool:
        raw = self.text(name).lower()
        if not raw:
            return default
        if raw in {"1", "true", "yes", "on"}:
            return True
        if raw in {"0", "false", "no", "off"}:
            return False
        raise ImproperlyConfigured(f"{name} must be true or false, not {raw!r}.")

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        raw = self.text(name, default).lower() or default
        if raw not in choices:
            raise ImproperlyConfigured(f"{name} must be one of {', '.join(choices)}, not {raw!r}.")
        return raw

    def whole(self, name: str, default: int, minimum: int = 0, maximum: int = 10**9) -> int:
        return self._number(name, default, minimum, maximum, int, "a whole number")

    def decimal(self, name: str, default: float, minimum: float, maximum: float) -> float:
        return self._number(name, default, minimum, maximum, float, "a number")

    def url(self, name: str, default: str, schemes: tuple[str, ...]) -> str:
        raw = self.text(name, default)
        if raw and raw.split("://", 1)[0] not in schemes:
            expected = " or ".join(f"{scheme}://" for scheme in schemes)
            raise ImproperlyConfigured(f"{name} must start with {expected}, not {raw.split(':', 1)[0]!r}.")
        return raw.rstrip("/") if "http" in schemes else raw

    def path(self, name: str, default: str, base: Path) -> Path:
        return (base / Path(self.text(name, default) or default).expanduser()).resolve()

    def database(self, name: str, default: str) -> dict:
        """Django's database dictionary. Raises ImproperlyConfigured for an engine other than the two we test."""
        raw = self.text(name, default) or default
        if raw.split(":", 1)[0] not in {"sqlite", "postgres", "postgresql"}:
            raise ImproperlyConfigured(f"{name} must start with sqlite:/// or postgres://.")
        return self._env.db_url_config(raw)

    def email(self, name: str, default: str) -> dict:
        """Django's e-mail settings from one URL, such as `smtp+tls://user:password@host:587`."""
        raw = self.text(name, default) or default
        try:
            return self._env.email_url_config(raw)
        except (KeyError, ValueError, ImproperlyConfigured):
            raise ImproperlyConfigured(f"{name} must start with smtp://, smtp+tls:// or consolemail://.") from None

    def _number(
        self, name: str, default: T, minimum: float, maximum: float, convert: Callable[[str], T], kind: str
    ) -> T:
        raw = self.text(name)
        if not raw:
            return default
        try:
            value = convert(raw)
        except ValueError:
            raise ImproperlyConfigured(f"{name} must be {kind}, not {raw!r}.") from None
        if not minimum <= value <= maximum:  # type: ignore[operator]
            raise ImproperlyConfigured(f"{name} must be between {minimum} and {maximum}, not {raw}.")
        return value


def create_secrets(data_dir: Path) -> Path:
    """Write the generated secrets once, readable by their owner only; the first of two racing processes wins."""
    file = data_dir / GENERATED_SECRETS
    if file.exists():
        return file
    data_dir.mkdir(parents=True, exist_ok=True)
    draft = data_dir / f".{GENERATED_SECRETS}.{os.getpid()}"
    draft.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
    draft.write_text(
        f"SECRET_KEY={secrets.token_urlsafe(50)}\n"
        f"ENCRYPTION_KEYS={Fernet.generate_key().decode()}\n"
        f"ENGINE_API_KEY={secrets.token_urlsafe(32)}\n"
    )
    try:
        os.link(draft, file)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return file
