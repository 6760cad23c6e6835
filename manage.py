#!/usr/bin/env python
"""Django's command line for the model gate. One sentence says what to do about a missing setting or an empty database."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crpbot.settings")
    try:
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line
        from django.db import DatabaseError
    except ImportError as missing:
        raise SystemExit(
            "Django is not installed here. Run `make setup`, then `.venv/bin/python manage.py …`."
        ) from missing
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        _stop(str(error), error)
    except DatabaseError as error:
        from crpbot.database_failures import explain_failure

        _stop(explain_failure(error), error)


def _stop(sentence: str, error: Exception) -> None:
    """End with this sentence; with --traceback, as Django does."""
    if "--traceback" in sys.argv:
        raise error
    raise SystemExit(sentence) from None


if __name__ == "__main__":
    main()
