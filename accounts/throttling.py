"""How often somebody may ask, counted for all web processes together; docs/adr/0013 says what is never refused so.

Rates are DRF's (`1200/min`), by what is asked for: a view's `throttle_scope` for what it changes (None: never refused), and
its `reading_scope` for what it shows.
"""

import hashlib
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

QUIET_SECONDS = 5.0
"""How long a process leaves a Redis alone that did not answer: no request waits for it, a pin least of all."""

logger = logging.getLogger(__name__)
_quiet_until = 0.0


@dataclass(frozen=True)
class Window:
    """One minute (hour, day) of somebody's requests of one kind."""

    key: str
    most: int
    seconds: int
    ends_in: float


class Limit(ScopedRateThrottle):
    """So many requests of a kind in each minute (hour, day) from whoever is signed in.

    Its rates and their configuration are DRF's, the counting is ours. DRF keeps the time of every request in one entry,
    which grows with the rate, and which two processes overwrite for each other. Here Redis adds one to a window's number.
    """

    window: Window | None = None

    def allow_request(self, request: Any, view: Any) -> bool:
        """Whether this one is within the limit; it counts."""
        self.window = window = self._now(request, view)
        return window is None or _ask(lambda cache: _add_one(cache, window)) <= window.most

    def is_used_up(self, request: Any, view: Any = None) -> bool:
        """Whether one more would be too many; this asking counts nothing."""
        self.window = window = self._now(request, view)
        return window is not None and _ask(lambda cache: int(cache.get(window.key, 0))) >= window.most

    def wait(self) -> float | None:
        return self.window.ends_in if self.window else None

    def _now(self, request: Any, view: Any) -> Window | None:
        """What this is counted in; None where it is not."""
        self.scope = self.scope_of(request, view)
        most, seconds = self.parse_rate(self._rate())
        if not most or not seconds:
            return None
        number, since = divmod(time.time(), seconds)
        return Window(f"{self.get_cache_key(request, view)}:{number:.0f}", most, seconds, seconds - since)

    def _rate(self) -> str | None:
        rate = api_settings.DEFAULT_THROTTLE_RATES[self.scope] if self.scope else None
        return str(rate) if rate else None

    def scope_of(self, request: Any, view: Any) -> str | None:
        if request.method in SAFE_METHODS:
            return getattr(view, "reading_scope", "reads")
        return getattr(view, "throttle_scope", "decisions")

    def get_cache_key(self, request: Any, view: Any) -> str:
        kind = "bot" if get_actor(request).is_bot else "person"
        return f"limit:{self.scope}:{kind}:{request.user.pk}"


class Unauthenticated(Limit):
    """So many refused credentials, or missing ones, from one address.

    Only what is refused counts, and is refused: a token that holds is never turned away for what others at its address do.
    """

    def scope_of(self, request: Any, view: Any) -> str:
        return "unauthenticated"

    def get_cache_key(self, request: Any, view: Any) -> str:
        return f"limit:{self.scope}:{self.get_ident(request)}"


class SignIns(Unauthenticated):
    """So many wrong passwords for one name from one address: a guesser locks nobody out who sits elsewhere."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = hashlib.sha256(name.casefold().encode(errors="replace")).hexdigest()[:16]

    def scope_of(self, request: Any, view: Any) -> str:
        return "sign_in"

    def get_cache_key(self, request: Any, view: Any) -> str:
        return f"{super().get_cache_key(request, view)}:{self.name}"


def _ask(question: Callable[[BaseCache], int]) -> int:
    """The answer of the cache that all web processes share; of this process's own while Redis is away."""
    global _quiet_until
    if time.monotonic() >= _quiet_until:
        try:
            return question(caches["shared"])
        except (RedisError, OSError) as error:
            _quiet_until = time.monotonic() + QUIET_SECONDS
            logger.warning("Redis does not count requests, each web process does for itself: %s", error)
    return question(caches["default"])


def _add_one(cache: BaseCache, window: Window) -> int:
    with suppress(ValueError):  # the window's first request
        return cache.incr(window.key)
    # Kept for longer than it counts, so that no count ends while it is added to.
    return 1 if cache.add(window.key, 1, timeout=2 * window.seconds) else cache.incr(window.key)
