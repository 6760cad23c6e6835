"""Runs a management command in the test process."""

from io import StringIO
from typing import Any

from django.core.management import call_command


def run(name: str, *args: str, **options: Any) -> tuple[int, str]:
    """The command's exit status and everything it printed."""
    out = StringIO()
    try:
        call_command(name, *args, stdout=out, stderr=out, **options)
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue()
    return 0, out.getvalue()
