"""Stores when tokens were last used: about once a minute, in the background, for every token that was used since."""

import asyncio
import logging
import time

from accounts import tokens
from deploy.edge.freshness import query_database, start_shared

logger = logging.getLogger(__name__)


class LastUses:
    """Stores the uses that a web process notes. No request waits for it, and none fails with it."""

    def __init__(self) -> None:
        self._next_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._storing: asyncio.Task[None] | None = None

    def note(self, *digests: str) -> None:
        """Remember that these tokens were used, by their digests."""
        tokens.note_use(*digests)
        self.store_soon()

    def store_soon(self) -> None:
        """Store what was noted, also by the API's own operations: at once, or a minute after the last time."""
        if self._timer is None and tokens.has_unstored_uses():
            wait_seconds = max(0.0, self._next_at - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait_seconds, self._start)

    def _start(self) -> None:
        self._next_at = time.monotonic() + tokens.STORE_SECONDS
        self._storing = start_shared(self._store())

    async def _store(self) -> None:
        try:
            await query_database(lambda _: tokens.store_uses(), None)
        except Exception:
            logger.exception("the last use of tokens was not stored")
        finally:
            self._timer = None
