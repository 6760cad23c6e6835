"""What bots report, in batches: collected for a moment, stored in one transaction, answered once it has committed.

A bot that got an answer was stored. Repeating a heartbeat or a live window is harmless, so nothing is lost if a process is
killed before it answers.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from django.db import InterfaceError, OperationalError

from common.errors import DomainError, Unavailable
from deploy.edge.freshness import query_database, start_shared

BATCH_SECONDS = 0.1
"""From the first report of a batch to its storing: each bot waits at least that long for its answer."""
MAX_BATCH = 500
"""Reports in one transaction."""
MAX_WAITING = 10_000
"""More are refused while the database is slow: an old heartbeat is worth little."""

Report = TypeVar("Report")
Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class Batcher(Generic[Report, Answer]):
    """The reports of one kind that this web process has not stored yet, and the task that stores them batch by batch."""

    def __init__(
        self, store_batch: Callable[[Sequence[Report]], Sequence[Answer | DomainError]], *, name: str
    ) -> None:
        self._store_batch, self._name = store_batch, name
        self._waiting: list[tuple[Report, asyncio.Future[Answer | DomainError]]] = []
        self._storing: asyncio.Task[None] | None = None

    async def store(self, report: Report) -> Answer:
        """Store a report with the next batch; returns its answer.

        Raises the refusal that `store_batch` returns for it, and Unavailable if it could not be stored or too many wait.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable(f"{MAX_WAITING} {self._name}s are waiting. Report again in a while.")
        future: asyncio.Future[Answer | DomainError] = asyncio.get_running_loop().create_future()
        self._waiting.append((report, future))
        if self._storing is None or self._storing.done():
            self._storing = start_shared(self._store_all())
        outcome = await future
        if isinstance(outcome, DomainError):
            raise outcome
        return outcome

    async def _store_all(self) -> None:
        while self._waiting:
            if len(self._waiting) < MAX_BATCH:
                await asyncio.sleep(BATCH_SECONDS)
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            outcomes = await self._store([report for report, _ in batch])
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():  # its client may have disconnected
                    future.set_result(outcome)

    async def _store(self, batch: Sequence[Report]) -> Sequence[Answer | DomainError]:
        """The outcome of each. If the batch fails for a reason other than the database, each is stored by itself."""
        try:
            return await query_database(self._store_batch, batch)
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, OperationalError | InterfaceError):
                logger.exception("%d %ss could not be stored together", len(batch), self._name)
                return [outcome for report in batch for outcome in await self._store([report])]
            logger.exception("%ss could not be stored: %d", self._name, len(batch))
            refusal = Unavailable(
                f"The service cannot store this {self._name} right now. Report again shortly."
            )
            return [refusal] * len(batch)
