"""What a bot runs at one moment: one immutable value, replaced as a whole. One read of it sees one release."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType

from crpbot_runtime.bundles import Predictors
from crpbot_runtime.decision import Active
from crpbot_runtime.errors import ClientError
from crpbot_runtime.protocol.snapshot import Snapshot
from crpbot_runtime.storage.saved_state import ReceivedSnapshot

NO_PREDICTORS: Predictors = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class State:
    """Everything a decision depends on. `is_unconfirmed`: the last request did not confirm the snapshot.

    `problem` says why the service was not reached or not followed, `save_problem` why the state could not be saved.
    """

    received: ReceivedSnapshot | None = None
    predictors: Predictors = field(default_factory=lambda: NO_PREDICTORS)
    is_unconfirmed: bool = False
    problem: ClientError | None = None
    save_problem: ClientError | None = None

    @property
    def snapshot(self) -> Snapshot | None:
        return self.received.snapshot if self.received else None

    @property
    def current_problem(self) -> ClientError | None:
        return self.problem or self.save_problem

    def compute_stale_since(self, now: datetime, fresh_for: timedelta) -> datetime | None:
        """When the service last confirmed the snapshot; None while that is recent, or without a snapshot."""
        if self.received is None:
            return None
        confirmed_at = self.received.confirmed_at
        # In both directions: a clock that is set back must not make an old answer look new for hours.
        is_old = abs(now - confirmed_at) > fresh_for
        return confirmed_at if self.is_unconfirmed or is_old else None

    def to_active(self, stale_since: datetime | None) -> Active:
        snapshot = self.snapshot
        if snapshot is None:
            return Active(problem=self.current_problem)
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
            problem=self.current_problem,
        )
