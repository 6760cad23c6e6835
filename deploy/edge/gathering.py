"""Heartbeats as they come in: collected for a moment, written in one transaction, answered once that has committed.

A bot that was answered was written down. To send a heartbeat again does no harm, so what a killed process had collected and
answered nobody for is not missed.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import InterfaceError, OperationalError

from common.errors import DomainError, Unavailable
from deploy import services
from deploy.edge.freshness import from_database
from deploy.services import Heard, Report

GATHER_SECONDS = 0.1
"""From the first of a batch to its writing: a bot waits that long for its answer, and the disk is waited for so often."""
MOST_AT_ONCE = 500
"""In one transaction: SQLite takes no more alternatives in one question than twice as many."""
MOST_WAITING = 10_000
"""More are asked to come back, while the database is slow: a heartbeat is worth less the older it gets."""

Outcome = Heard | DomainError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Waiting:
    report: Report
    outcome: "asyncio.Future[Outcome]"


class Gathering:
    """The heartbeats of one web process that are not written yet, and the one task that writes them, batch by batch."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def heard(self, report: Report) -> Heard:
        """What this bot is told, once what it said is written down.

        Raises what `services.heartbeat` raises, and Unavailable where it could not be written or too many wait.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise Unavailable(f"{MOST_WAITING} bots wait to be heard. Report again in a while.")
        mine = _Waiting(report, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        outcome = await mine.outcome
        if isinstance(outcome, DomainError):
            raise outcome
        return outcome

    async def _write_all(self) -> None:
        while self._waiting:
            if len(self._waiting) < MOST_AT_ONCE:
                await asyncio.sleep(GATHER_SECONDS)
            batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            outcomes = await _written([one.report for one in batch])
            for one, outcome in zip(batch, outcomes, strict=True):
                if not one.outcome.done():  # its connection may have been given up
                    one.outcome.set_result(outcome)


async def _written(reports: Sequence[Report]) -> list[Outcome]:
    """What came of each; where the batch fails for what one of them says, each by itself."""
    try:
        return await from_database(services.heartbeats, reports)
    except Exception as error:
        if len(reports) > 1 and not isinstance(error, OperationalError | InterfaceError):
            logger.exception("%d heartbeats could not be written together", len(reports))
            return [outcome for report in reports for outcome in await _written([report])]
        logger.exception("heartbeats could not be written: %d", len(reports))
        return [Unavailable("The service cannot write this down right now. Report again shortly.")] * len(
            reports
        )
