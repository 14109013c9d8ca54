#!/usr/bin/env python
"""Django's command line for Dialoop."""

import os
import sys

# What structlog, Django and kombu load where it happens to be installed: 4 MB of the web process, for nothing.
UNUSED = ("rich", "jinja2", "yaml")


def main() -> int:
    if sys.argv[1:2] == ["serve_web"]:
        sys.modules.update(dict.fromkeys(UNUSED))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.stderr.write(f"dialoop: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
