"""Typed, checked readers over django-environ. Only `config/settings.py` uses them."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import environ
from cryptography.fernet import Fernet, MultiFernet
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
        """A blank value is as good as none. Taken as it is: django-environ would read `$x` as another variable's."""
        return os.environ.get(name, "").strip() or default

    def texts(self, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A comma list; blanks around and between items are dropped."""
        return tuple(item.strip() for item in self.text(name, ",".join(default)).split(",") if item.strip())

    def key(self, name: str) -> str:
        """A key that goes into an HTTP header, as it is."""
        raw = self.text(name)
        if not raw.isascii() or not raw.isprintable() or " " in raw:
            raise ImproperlyConfigured(f"{name} holds a character that no key has, such as a space or an umlaut.")
        return raw

    def generated(self, name: str) -> str:
        """One of the secrets that set-up generates where they are not set."""
        if raw := self.key(name):
            return raw
        raise ImproperlyConfigured(f"{name} is set to nothing: set it, or leave it out and it is generated.")

    def encryption_keys(self, name: str) -> tuple[str, ...]:
        """Fernet keys, at least one."""
        keys = tuple(item.strip() for item in self.generated(name).split(",") if item.strip())
        try:
            MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            raise ImproperlyConfigured(f"{name} must be a comma list of keys (32 bytes in base64 each).") from None
        return keys

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
        _check_port(name, raw)
        if raw and not raw.startswith("unix:") and not urlsplit(raw).hostname:
            raise ImproperlyConfigured(f"{name} must name a host behind the {raw.split(':', 1)[0]}://.")
        return raw.rstrip("/") if "http" in schemes else raw

    def origin(self, name: str) -> str:
        """An address as a browser's Origin has it: scheme, host and port."""
        raw = self.url(name, "", ("http", "https"))
        if raw.count("/") > 2:
            raise ImproperlyConfigured(f"{name} must end with the host or its port: a path behind it is not served.")
        return raw.lower()

    def path(self, name: str, default: str, base: Path) -> Path:
        return (base / Path(self.text(name, default) or default).expanduser()).resolve()

    def database(self, name: str, default: str) -> dict:
        """Django's database dictionary. Raises ImproperlyConfigured for an engine other than the two we test."""
        raw = self.text(name, default) or default
        if raw.split(":", 1)[0] not in {"sqlite", "postgres", "postgresql"}:
            raise ImproperlyConfigured(f"{name} must start with sqlite:/// or postgres://.")
        _check_port(name, raw)
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


def _check_port(name: str, url: str) -> None:
    try:
        if urlsplit(url).port != 0:
            return
    except ValueError:  # a port that is none, half an IPv6 address, a `#` in a password
        pass
    sentence = "is no address: its port must be from 1 to 65535, and a password's special characters percent-encoded"
    raise ImproperlyConfigured(f"{name} {sentence}.")


def create_secrets(data_dir: Path) -> Path:
    """Write the generated secrets once, readable by their owner only; the first of two racing processes wins.

    Raises ImproperlyConfigured when the folder cannot be made or written.
    """
    file = data_dir / GENERATED_SECRETS
    try:
        if not file.exists():
            _write_secrets(data_dir, file)
    except OSError as error:
        raise ImproperlyConfigured(f"DATA_DIR {data_dir} cannot be used: {error.strerror}.") from None
    return file


def _write_secrets(data_dir: Path, file: Path) -> None:
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
