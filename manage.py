#!/usr/bin/env python
"""Django's command line for Dialoop."""

import os
import sys


def main() -> int:
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
