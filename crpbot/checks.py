"""System checks."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError, connection


@register(Tags.database)
def check_db_guards(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """All guards are installed in the database.

    A warning, not an error: `migrate` runs this check before it installs them.
    """
    from audit import triggers
    from audit.models import AuditEvent

    if not databases or "default" not in databases:
        return []
    try:
        if AuditEvent._meta.db_table not in connection.introspection.table_names():
            return []  # no table to guard yet; `migrate` makes both
        missing = triggers.find_missing()
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
def check_sandbox(**kwargs: Any) -> list[CheckMessage]:
    """This machine can isolate the readers of files from outside (docs/adr/0007).

    An error where nothing from outside will be read; a warning where it will be, in a weaker sandbox.
    """
    from training.jobs import sandbox

    missing = sorted(sandbox.ESSENTIAL - sandbox.find_layers())
    if not missing:
        return []
    level = Warning if settings.ALLOW_WEAK_SANDBOX else Error
    return [
        level(
            f"The sandbox lacks {' and '.join(missing)} on this machine.",
            hint="Use a Linux kernel with Landlock and seccomp. CRPBOT_ALLOW_WEAK_SANDBOX=1 accepts it.",
            id="crpbot.W003" if settings.ALLOW_WEAK_SANDBOX else "crpbot.E003",
        )
    ]


@register(Tags.security)
def check_embedded_hosts(**kwargs: Any) -> list[Error]:
    """The embedded profile has generated secrets and printed passwords, so it must not serve a network."""
    remote = [
        host
        for host in settings.ALLOWED_HOSTS
        if host not in ("127.0.0.1", "localhost", "[::1]", "testserver")
    ]
    if not settings.IS_EMBEDDED or not remote:
        return []
    return [
        Error(
            f"The embedded profile answers on loopback only, not as {', '.join(remote)}.",
            hint="Set CRPBOT_PROFILE=production and its secrets to serve a network.",
            id="crpbot.E002",
        )
    ]
