"""Request limits, counted for all web processes together. docs/adr/0013 says which requests have no limit.

Rates have DRF's form (`1200/min`). A view's `throttle_scope` names the rate of its writes (None: no limit), its
`reading_scope` that of its reads.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.core.cache import BaseCache, caches
from redis.exceptions import RedisError
from rest_framework.permissions import SAFE_METHODS
from rest_framework.settings import api_settings
from rest_framework.throttling import ScopedRateThrottle

from accounts.authentication import get_actor
from common.metrics import time_redis

REDIS_PAUSE_SECONDS = 5.0
"""After a failure a process counts by itself for this long, so that no request waits for Redis."""

logger = logging.getLogger(__name__)
_paused_until = 0.0


@dataclass(frozen=True)
class Window:
    """One minute (hour, day) of the requests of one kind by one user or address."""

    key: str
    most: int
    seconds: int
    ends_in: float


class RequestLimit(ScopedRateThrottle):
    """Limits the requests of one kind per minute (hour, day) and user.

    Rates and their configuration are DRF's, but not the counting. DRF keeps the time of every request in one cache entry,
    which grows with the rate, and which two processes overwrite for each other. Here Redis increments a counter.
    """

    window: Window | None = None

    def allow_request(self, request: Any, view: Any) -> bool:
        """Count this request, and say whether it is within the limit."""
        self.window = window = self._find_window(request, view)
        return window is None or _query_counts(lambda cache: _increment(cache, window)) <= window.most

    def wait(self) -> float | None:
        return self.window.ends_in if self.window else None

    def _find_window(self, request: Any, view: Any) -> Window | None:
        """The window of this request; None when it has no limit."""
        self.scope = self.get_scope(request, view)
        rate = api_settings.DEFAULT_THROTTLE_RATES[self.scope] if self.scope else None
        most, seconds = self.parse_rate(str(rate) if rate else None)
        if not most or not seconds:
            return None
        number, since = divmod(time.time(), seconds)
        return Window(f"{self.get_cache_key(request, view)}:{number:.0f}", most, seconds, seconds - since)

    def get_scope(self, request: Any, view: Any) -> str | None:
        if request.method in SAFE_METHODS:
            return getattr(view, "reading_scope", "reads")
        return getattr(view, "throttle_scope", "decisions")

    def get_cache_key(self, request: Any, view: Any) -> str:
        kind = "bot" if get_actor(request).is_bot else "person"
        return f"limit:{self.scope}:{kind}:{request.user.pk}"


class RefusedCredentialLimit(RequestLimit):
    """Limits requests with refused or missing credentials per address.

    Only refused requests count: a valid token is never limited because of others at the same address.
    """

    def get_scope(self, request: Any, view: Any) -> str:
        return "unauthenticated"

    def get_cache_key(self, request: Any, view: Any) -> str:
        return f"limit:{self.scope}:{self.get_ident(request)}"


def _query_counts(query: Callable[[BaseCache], int]) -> int:
    """Run the query on the shared cache, or on this process's own while Redis does not answer."""
    global _paused_until
    if time.monotonic() >= _paused_until:
        try:
            with time_redis("count"):
                return query(caches["shared"])
        except (RedisError, OSError) as error:
            _paused_until = time.monotonic() + REDIS_PAUSE_SECONDS
            logger.warning("Redis does not answer; each web process counts requests by itself: %s", error)
    return query(caches["default"])


def _increment(cache: BaseCache, window: Window) -> int:
    with suppress(ValueError):  # the window's first request
        return cache.incr(window.key)
    # Kept longer than its window, so that no counter expires while it is incremented.
    return 1 if cache.add(window.key, 1, timeout=2 * window.seconds) else cache.incr(window.key)
