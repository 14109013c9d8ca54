"""Collects static files for whitenoise, and knows when nothing has changed since the last time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command

STAMP = ".collected"


def collect_static_files() -> bool:
    """Fill STATIC_ROOT. False, after a look at names, sizes and times only, when it is up to date."""
    root = Path(settings.STATIC_ROOT)
    stamp = root / STAMP
    fingerprint = fingerprint_sources()
    if stamp.is_file() and stamp.read_text() == fingerprint:
        return False
    root.mkdir(parents=True, exist_ok=True)
    call_command("collectstatic", interactive=False, clear=True, verbosity=0)
    stamp.write_text(fingerprint)
    return True


def fingerprint_sources() -> str:
    """A hash over every source file's name, size and time of change, and over the storage that names the results."""
    entries = [(settings.STORAGES["staticfiles"]["BACKEND"], 0, 0)]
    for finder in get_finders():
        for path, storage in finder.list(None):
            status = Path(storage.path(path)).stat()
            entries.append((path, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps(sorted(entries)).encode()).hexdigest()
