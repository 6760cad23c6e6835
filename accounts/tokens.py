"""How long a token is valid, and when it was last used.

Uses are noted in memory and stored about once a minute (deploy/edge/last_use.py), so that no request waits for it.
"""

import threading
from datetime import timedelta

from django.db import DatabaseError
from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.models import ApiToken
from accounts.roles import Scope

LIFETIME = timedelta(days=90)
"""Of a token, unless another time or "never" is asked for."""
WARNING_TIME = timedelta(days=14)
"""A bot's token raises an alarm from this long before it expires until this long after."""
STORE_SECONDS = 60.0
PER_QUERY = 2_000
"""Databases limit the size of a statement."""

_lock = threading.Lock()
_used: set[str] = set()


def note_use(*digests: str) -> None:
    """Remember that these valid tokens were used, by their digests."""
    _used.update(digests)


def has_unstored_uses() -> bool:
    return bool(_used)


def store_uses() -> None:
    """Write the time of use of every token noted since the last call. Another process may have just done so."""
    with _lock:
        digests = list(_used)
        _used.difference_update(digests)
    now = timezone.now()
    is_older = Q(last_used_at=None) | Q(last_used_at__lt=now - timedelta(seconds=STORE_SECONDS / 2))
    try:
        for first in range(0, len(digests), PER_QUERY):
            used = ApiToken.objects.filter(is_older, digest__in=digests[first : first + PER_QUERY])
            used.update(last_used_at=now)
    except DatabaseError:
        note_use(*digests)  # for the next call
        raise


def list_unrevoked() -> QuerySet[ApiToken]:
    """Every token that nobody ended, also an expired one, with its owner."""
    return (
        ApiToken.objects.filter(revoked_at=None, user__is_active=True).select_related("user").order_by("pk")
    )


def list_expiring_of_bots() -> list[ApiToken]:
    """Bots' tokens that expire soon or expired lately, the first to expire first."""
    now = timezone.now()
    expiring = list_unrevoked().filter(
        scope=Scope.BOT.value, expires_at__gt=now - WARNING_TIME, expires_at__lte=now + WARNING_TIME
    )
    return list(expiring.order_by("expires_at", "pk"))
