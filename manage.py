#!/usr/bin/env python
"""Django's command line, for the project."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "qflare.settings")
    from django.core.management import execute_from_command_line

    from qflare.env import BadSetting

    try:
        execute_from_command_line(sys.argv)
    except BadSetting as error:
        sys.exit(f"{error}")
