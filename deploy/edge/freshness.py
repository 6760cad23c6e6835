"""What a web process caches from the database, for at most FRESH_SECONDS."""

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections

from accounts import services as accounts
from accounts.roles import Actor

FRESH_SECONDS = 0.5

Known = TypeVar("Known")


class CachedValue(Generic[Known]):
    """A value that is queried again once it is older than FRESH_SECONDS, by one caller while the others wait."""

    def __init__(self, query: Callable[[Known | None], Known]) -> None:
        self._query = query
        self._value: Known | None = None
        self._queried_at = float("-inf")
        self._lock = asyncio.Lock()

    @property
    def last(self) -> Known | None:
        """The value of the last query that succeeded, however old."""
        return self._value

    async def get(self, since: float | None = None) -> Known:
        """The value, queried at `since` (of time.monotonic) or later; by default, at most FRESH_SECONDS ago.

        Raises what the query raises; an old value is never returned instead.
        """
        since = time.monotonic() - FRESH_SECONDS if since is None else since
        if self._value is None or self._queried_at < since:
            async with self._lock:
                if self._value is None or self._queried_at < since:
                    queried_at = time.monotonic()
                    self._value = await query_database(self._query, self._value)
                    self._queried_at = queried_at
        return self._value


class TokenOwners:
    """The owners of the tokens that this process has received: one query for all of them at a time."""

    def __init__(self) -> None:
        # Unknown tokens are dropped at the next query: a flood of invented ones costs queries, never memory.
        self._known: CachedValue[dict[str, Actor | None]] = CachedValue(
            lambda known: dict(accounts.find_actors(list(known or ())))
        )
        self._missing: set[str] = set()
        self._querying = asyncio.Lock()
        self._next: asyncio.Task[dict[str, Actor | None]] | None = None

    async def look_up(self, digests: Collection[str], since: float | None = None) -> dict[str, Actor | None]:
        """The actor of each of these tokens, by its digest; None if it is unknown, expired or revoked."""
        known = await self._known.get(since)
        if missing := [digest for digest in digests if digest not in known]:
            self._missing.update(missing)
            if self._next is None:
                self._next = asyncio.create_task(self._query_missing())
            actors = await asyncio.shield(self._next)
            known |= {digest: actors[digest] for digest in missing}
        return known

    async def _query_missing(self) -> dict[str, Actor | None]:
        """Query all tokens that came during the last query: a flood costs one query at a time."""
        async with self._querying:
            missing, self._missing, self._next = self._missing, set(), None
            return dict.fromkeys(missing) | await query_database(accounts.find_actors, missing)

    def recall(self, digest: str) -> Actor | None:
        """The actor of this token as of the last query that succeeded."""
        return (self._known.last or {}).get(digest)

    def __len__(self) -> int:
        return len(self._known.last or ())


Argument = TypeVar("Argument")
Result = TypeVar("Result")


async def query_database(query: Callable[[Argument], Result], argument: Argument) -> Result:
    """Run a query in a thread of its own, which leaves no broken connection behind."""

    def run() -> Result:
        close_old_connections()
        try:
            return query(argument)
        finally:
            close_old_connections()

    return await sync_to_async(run, thread_sensitive=False)()
