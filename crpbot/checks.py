"""System checks with a hint for what is wrong."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError


@register(Tags.database)
def refusals_are_installed(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """The triggers that keep the pointer and the audit honest are in the database.

    A warning, not an error: `migrate` runs this check before it can install them.
    """
    from audit import triggers

    if not databases or "default" not in databases:
        return []
    try:
        missing = triggers.missing()
    except DatabaseError:
        return []  # no database yet; `migrate` makes it
    if not missing:
        return []
    return [
        Warning(
            f"{len(missing)} database triggers are missing or altered: {', '.join(missing[:5])}",
            hint="Run `manage.py migrate`; it installs them. Until then the pointer will not move.",
            id="crpbot.W001",
        )
    ]


@register(Tags.security)
def embedded_stays_on_loopback(**kwargs: Any) -> list[Error]:
    """The embedded profile has generated secrets and printed passwords: it is not for a network."""
    outside = [
        host
        for host in settings.ALLOWED_HOSTS
        if host not in ("127.0.0.1", "localhost", "[::1]", "testserver")
    ]
    if not settings.IS_EMBEDDED or not outside:
        return []
    return [
        Error(
            f"The embedded profile answers on loopback only, not as {', '.join(outside)}.",
            hint="Set CRPBOT_PROFILE=production and its secrets to serve a network.",
            id="crpbot.E002",
        )
    ]
