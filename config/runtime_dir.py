"""The private folder of an instance's sockets. Short on purpose: a unix socket's path may be 107 bytes at most."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

PRIVATE = stat.S_IRWXU


def create_runtime_dir(directory: Path) -> Path:
    """Create the folder for its owner alone. Raises ImproperlyConfigured when somebody else made it first."""
    directory.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    found = directory.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.getuid():
        raise ImproperlyConfigured(f"DATA_DIR leads to the runtime folder {directory}, which belongs to someone else.")
    directory.chmod(PRIVATE)
    return directory
