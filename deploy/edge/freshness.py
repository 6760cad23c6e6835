"""What a web process knows of the database, and for how long it may go on knowing it without asking again."""

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections

from accounts import services as accounts
from accounts.rules import Actor

FRESH_SECONDS = 0.5

Known = TypeVar("Known")


class Fresh(Generic[Known]):
    """A value asked for anew once it is older than FRESH_SECONDS, by one caller while the others wait."""

    def __init__(self, ask: Callable[[Known | None], Known]) -> None:
        self._ask = ask
        self._value: Known | None = None
        self._asked_at = float("-inf")
        self._lock = asyncio.Lock()

    async def get(self, since: float | None = None) -> Known:
        """The value, asked for at `since` (of time.monotonic) or later; without it, no longer ago than FRESH_SECONDS.

        Raises what asking raises; nothing old is given out instead.
        """
        since = time.monotonic() - FRESH_SECONDS if since is None else since
        if self._value is None or self._asked_at < since:
            async with self._lock:
                if self._value is None or self._asked_at < since:
                    asked_at = time.monotonic()
                    self._value = await from_database(self._ask, self._value)
                    self._asked_at = asked_at
        return self._value


class Owners:
    """Who is behind the tokens that were shown to this process: one question for all of them at a time."""

    def __init__(self) -> None:
        # Unknown tokens are forgotten at the next question: a flood of made-up ones costs look-ups, never memory.
        self._known: Fresh[dict[str, Actor | None]] = Fresh(
            lambda known: dict(accounts.find_actors(list(known or ())))
        )
        self._unasked: set[str] = set()
        self._asking = asyncio.Lock()
        self._next: asyncio.Task[dict[str, Actor | None]] | None = None

    async def of(self, digests: Collection[str], since: float | None = None) -> dict[str, Actor | None]:
        """The actor behind each of these tokens, by its digest; None where it is unknown, expired or revoked."""
        known = await self._known.get(since)
        if missing := [digest for digest in digests if digest not in known]:
            self._unasked.update(missing)
            if self._next is None:
                self._next = asyncio.create_task(self._look_up())
            found = await asyncio.shield(self._next)
            known |= {digest: found[digest] for digest in missing}
        return known

    async def _look_up(self) -> dict[str, Actor | None]:
        """Ask for all that came while the last question was under way: a flood costs one question at a time."""
        async with self._asking:
            asked, self._unasked, self._next = self._unasked, set(), None
            return dict.fromkeys(asked) | await from_database(accounts.find_actors, asked)

    def __len__(self) -> int:
        return len(self._known._value or ())


Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


async def from_database(ask: Callable[[Asked], Answered], about: Asked) -> Answered:
    """Ask in a thread of its own, which leaves no broken connection behind."""

    def asked() -> Answered:
        close_old_connections()
        try:
            return ask(about)
        finally:
            close_old_connections()

    return await sync_to_async(asked, thread_sensitive=False)()
