"""What a bot runs at one moment: one value, replaced as a whole, so that whoever reads it once sees one release."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType

from runtime.decision import Active
from runtime.errors import ClientError
from runtime.loading import Predictors
from runtime.protocol.snapshot import Snapshot
from runtime.storage.notes import Kept

NO_PREDICTORS: Predictors = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class State:
    """All that a decision depends on. `was_missed`: the last question was not confirmed.

    `problem` says why the service was not heard or followed, `unkept` why what is in use could not be written down.
    """

    kept: Kept | None = None
    predictors: Predictors = field(default_factory=lambda: NO_PREDICTORS)
    was_missed: bool = False
    problem: ClientError | None = None
    unkept: ClientError | None = None

    @property
    def snapshot(self) -> Snapshot | None:
        return self.kept.snapshot if self.kept else None

    @property
    def trouble(self) -> ClientError | None:
        return self.problem or self.unkept

    def stale_since(self, now: datetime, fresh_for: timedelta) -> datetime | None:
        """When the service last confirmed what is in use; None while that is `fresh_for` enough, or nothing is."""
        if self.kept is None:
            return None
        confirmed_at = self.kept.confirmed_at
        # Either way: a clock set back must not make an old answer look new for hours.
        is_old = abs(now - confirmed_at) > fresh_for
        return confirmed_at if self.was_missed or is_old else None

    def active(self, stale_since: datetime | None) -> Active:
        """The same, as the bot's own code sees it."""
        snapshot = self.snapshot
        if snapshot is None:
            return Active(problem=self.trouble)
        return Active(
            service=snapshot.service,
            revision=snapshot.revision,
            line=snapshot.line,
            release=snapshot.release,
            coins=tuple(self.predictors),
            is_simulated=snapshot.is_simulated,
            moved_at=snapshot.moved_at,
            reason=snapshot.reason,
            stale_since=stale_since,
            problem=self.trouble,
        )
