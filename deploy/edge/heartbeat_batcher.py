"""Heartbeats in batches: collected for a moment, stored in one transaction, answered once it has committed.

A bot that got an answer was stored. Repeating a heartbeat is harmless, so nothing is lost if a process is killed before it
answers.
"""

import asyncio
import logging
from collections.abc import Sequence

from django.db import InterfaceError, OperationalError

from common.errors import DomainError, Unavailable
from deploy.bots.heartbeat_checks import ReceivedHeartbeat
from deploy.bots.heartbeats import HeartbeatAnswer, receive_heartbeats
from deploy.edge.freshness import query_database

BATCH_SECONDS = 0.1
"""From the first heartbeat of a batch to its storing: each bot waits at least that long for its answer."""
MAX_BATCH = 500
"""Heartbeats in one transaction: SQLite accepts at most twice as many alternatives in one query."""
MAX_WAITING = 10_000
"""More are refused while the database is slow: an old heartbeat is worth little."""

Outcome = HeartbeatAnswer | DomainError

logger = logging.getLogger(__name__)


class HeartbeatBatcher:
    """The heartbeats of one web process that are not stored yet, and the one task that stores them, batch by batch."""

    def __init__(self) -> None:
        self._waiting: list[tuple[ReceivedHeartbeat, asyncio.Future[Outcome]]] = []
        self._storing: asyncio.Task[None] | None = None

    async def store(self, received: ReceivedHeartbeat) -> HeartbeatAnswer:
        """Store a heartbeat with the next batch; returns its answer.

        Raises what `receive_heartbeat` raises, and Unavailable if it could not be stored or too many wait.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable(f"{MAX_WAITING} heartbeats are waiting. Report again in a while.")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((received, future))
        if self._storing is None or self._storing.done():
            self._storing = asyncio.create_task(self._store_all())
        outcome = await future
        if isinstance(outcome, DomainError):
            raise outcome
        return outcome

    async def _store_all(self) -> None:
        while self._waiting:
            if len(self._waiting) < MAX_BATCH:
                await asyncio.sleep(BATCH_SECONDS)
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            outcomes = await _store_batch([received for received, _ in batch])
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():  # its client may have disconnected
                    future.set_result(outcome)


async def _store_batch(batch: Sequence[ReceivedHeartbeat]) -> list[Outcome]:
    """The outcome of each. If the batch fails for a reason other than the database, each is stored by itself."""
    try:
        return await query_database(receive_heartbeats, batch)
    except Exception as error:
        if len(batch) > 1 and not isinstance(error, OperationalError | InterfaceError):
            logger.exception("%d heartbeats could not be stored together", len(batch))
            return [outcome for received in batch for outcome in await _store_batch([received])]
        logger.exception("heartbeats could not be stored: %d", len(batch))
        refusal = Unavailable("The service cannot store this heartbeat right now. Report again shortly.")
        return [refusal] * len(batch)
