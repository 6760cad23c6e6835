"""What a web process caches from the database, for at most FRESH_SECONDS."""

import asyncio
import random
import time
from collections.abc import Callable, Collection, Coroutine
from contextvars import Context
from typing import Any, Generic, NamedTuple, TypeVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections
from django.utils import timezone

from accounts import services as accounts
from accounts.roles import Actor
from accounts.services import AccessChanges, TokenOwner

FRESH_SECONDS = 0.5
KNOWN_SECONDS = 300.0
"""A known token is looked up again after one to two times this, whatever the audit says: rows changed by hand show then too.
One that was not received for so long is forgotten."""

Known = TypeVar("Known")


class CachedValue(Generic[Known]):
    """A value that is queried again once it is older than FRESH_SECONDS, by one query for all that wait."""

    def __init__(self, query: Callable[[Known | None], Known]) -> None:
        self._query = query
        self._value: Known | None = None
        self._queried_at = float("-inf")
        self._querying: asyncio.Task[None] | None = None

    @property
    def last(self) -> Known | None:
        """The value of the last query that succeeded, however old."""
        return self._value

    @property
    def fresh(self) -> Known | None:
        """The value that `get` would return without waiting; None where it would query."""
        return self._value if self._queried_at > time.monotonic() - FRESH_SECONDS else None

    async def get(self, since: float | None = None) -> Known:
        """The value, queried at `since` (of time.monotonic) or later; by default, at most FRESH_SECONDS ago.

        Raises what the query raises; an old value is never returned instead. A caller may give up and be cancelled: the
        query goes on for the others, so that a frozen database holds one thread and one connection, not one a caller.
        """
        now = time.monotonic()
        since = min(now, now - FRESH_SECONDS if since is None else since)
        while self._value is None or self._queried_at < since:
            if self._querying is None:
                self._querying = start_shared(self._update())
                self._querying.add_done_callback(_retrieve_error)
            await asyncio.shield(self._querying)
        return self._value

    async def _update(self) -> None:
        queried_at = time.monotonic()
        try:
            self._value = await query_database(self._query, self._value)
            self._queried_at = queried_at
        finally:
            self._querying = None


def _retrieve_error(task: asyncio.Task[None]) -> None:
    """Without this, asyncio would log an error that no caller waited for."""
    if not task.cancelled():
        task.exception()


class TokenOwners:
    """The owners of the tokens that this process has received, looked up once and again after a change.

    Twice a second it asks only what changed about users and tokens, so the cost does not grow with the tokens it knows.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        # Unknown tokens are dropped at the next query: a flood of invented ones costs queries, never memory.
        self._unknown: set[str] = set()
        self._changes: CachedValue[AccessChanges] = CachedValue(
            lambda last: accounts.list_access_changes(last.seq if last else None)
        )
        self._applied: AccessChanges | None = None
        self._changed_during_query: list[AccessChanges] = []
        self._missing: set[str] = set()
        self._querying = asyncio.Lock()
        self._next: asyncio.Task[dict[str, TokenOwner]] | None = None
        self._swept_at = time.monotonic()

    async def look_up(self, digests: Collection[str], since: float | None = None) -> dict[str, Actor | None]:
        """The actor of each of these tokens, by its digest; None if it is unknown, expired or revoked."""
        self._apply(await self._changes.get(since))
        at, now, actors = time.monotonic(), timezone.now(), dict[str, Actor | None]()
        for digest in digests:
            if (known := self._find_known(digest, at)) is not None:
                actors[digest] = known.owner.get_actor(now)
            elif digest in self._unknown:
                actors[digest] = None
        if missing := [digest for digest in digests if digest not in actors]:
            self._missing.update(missing)
            if self._next is None:
                self._next = start_shared(self._query_missing())
            owners = await asyncio.shield(self._next)
            for digest in missing:
                actors[digest] = owners[digest].get_actor(now) if digest in owners else None
        return actors

    def find_fresh(self, digest: str) -> Actor | None:
        """The actor of this token, where `look_up` would return it without waiting; else None."""
        if (changes := self._changes.fresh) is None:
            return None
        self._apply(changes)
        known = self._find_known(digest, time.monotonic())
        return None if known is None else known.owner.get_actor(timezone.now())

    def _find_known(self, digest: str, at: float) -> "_Known | None":
        known = self._known.get(digest)
        return known if known is not None and known.look_up_again_at > at else None

    def _apply(self, changes: AccessChanges) -> None:
        """Forget the tokens that changed: they are looked up again when they are received again."""
        if changes is self._applied:
            return
        self._applied, self._unknown = changes, set()
        if changes:
            self._changed_during_query.append(changes)
            self._keep_known(lambda known: not changes.affect(known.owner))
        if time.monotonic() - self._swept_at > KNOWN_SECONDS:
            self._swept_at = time.monotonic()
            self._keep_known(lambda known: known.look_up_again_at > self._swept_at)

    def _keep_known(self, is_kept: Callable[["_Known"], bool]) -> None:
        self._known = {digest: known for digest, known in self._known.items() if is_kept(known)}

    async def _query_missing(self) -> dict[str, TokenOwner]:
        """Query all tokens that came during the last query: a flood costs one query at a time."""
        async with self._querying:
            missing, self._missing, self._next = self._missing, set(), None
            self._changed_during_query = []
            owners = await query_database(accounts.find_owners, missing)
            self._unknown |= missing - owners.keys()
            for digest, owner in owners.items():
                # What changed meanwhile may be missing in this answer.
                if not any(changes.affect(owner) for changes in self._changed_during_query):
                    # Spread, so that bots that connected together are not looked up together.
                    lifetime = KNOWN_SECONDS * random.uniform(1, 2)
                    self._known[digest] = _Known(owner, time.monotonic() + lifetime)
            return owners

    def recall(self, digest: str) -> Actor | None:
        """The actor of this token as of the last query that succeeded."""
        known = self._known.get(digest)
        return known.owner.get_actor(timezone.now()) if known else None

    def __len__(self) -> int:
        return len(self._known) + len(self._unknown)


class _Known(NamedTuple):
    owner: TokenOwner
    look_up_again_at: float
    """By time.monotonic()."""


def start_shared(work: Coroutine[Any, Any, Known]) -> asyncio.Task[Known]:
    """Start work for many requests: its log lines name none of them."""
    return asyncio.create_task(work, context=Context())


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
