"""The script that an instance runs when it boots for the first time. It holds no secret."""

import shlex
from decimal import ROUND_UP, Decimal
from pathlib import Path

from django.conf import settings

from machines.rules import STOP_MARGIN_SECONDS

WORKER_PREFIX = "worker@"
"""Of the name of the worker on an instance; the id of the instance follows."""
_FOLDER = Path(__file__).parent


def build_user_data(*, usd_per_hour: Decimal, allowed_seconds: int) -> str:
    """For one life: its watchdog ends it before its bound, and its worker reckons with its price."""
    slots = settings.MACHINE_SLOTS
    longest = compute_watchdog_seconds(allowed_seconds)
    values = {
        "WATCHDOG": (_FOLDER / "watchdog.sh").read_text().rstrip(),
        "LONGEST_SECONDS": str(longest),
        "MINUTES": str(max(1, longest // 60)),
        "REGION": shlex.quote(settings.MACHINE_REGION),
        "PARAMETER": shlex.quote(settings.MACHINE_PARAMETER),
        "RATE": str((usd_per_hour / slots).quantize(Decimal("0.0001"), rounding=ROUND_UP)),
        "IMAGE": shlex.quote(settings.MACHINE_IMAGE),
        "SLOTS": str(slots),
    }
    script = (_FOLDER / "user_data.sh").read_text()
    for name, value in values.items():
        script = script.replace(f"@{name}@", value)
    return script


def compute_watchdog_seconds(allowed_seconds: int) -> int:
    """When the watchdog ends an instance that the service should have stopped: between that stop and the bound."""
    return max(60, allowed_seconds - STOP_MARGIN_SECONDS // 2)
