"""A clock that a test shifts while a process runs: by the seconds that a file holds.

The service reads the time by django.utils.timezone.now, and so it needs neither root nor a preloaded library.
"""

from datetime import datetime, timedelta
from pathlib import Path

from django.utils import timezone


def install(path: Path) -> None:
    """Shift this process's clock from here on."""
    read_real = timezone.now

    def now() -> datetime:
        return read_real() + timedelta(seconds=read_shift(path))

    timezone.now = now


def read_shift(path: Path) -> float:
    try:
        return float(path.read_text() or 0)
    except FileNotFoundError:
        return 0.0
