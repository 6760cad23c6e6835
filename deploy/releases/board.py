"""The content of the board: the pointer, the fallback, the candidate, releases being built, the last moves."""

import threading
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from django.conf import settings
from django.db.models import QuerySet, prefetch_related_objects

from common.errors import Unavailable
from deploy.alarms.detect import list_alarms
from deploy.bots.fleet import Fleet, count_bots
from deploy.models import Alarm, PointerMove, Release
from deploy.outcomes import list_release_coins
from deploy.pointer import pointer
from deploy.pointer.fallback import FallbackReadiness, check_fallback_cached
from deploy.releases.gate_table import GateTable, build_gate_table
from deploy.releases.preview import PolicyPreview, preview_policy
from deploy.releases.progress import Progress, load_progress
from deploy.rules import Action, MoveKind, Purpose, ReleaseState
from training.jobs.worker_registry import list_alive_workers

MOVES_SHOWN = 6
MAX_WAIT_SECONDS = 5.0
"""For another browser's reading of the board."""
_RELATED = ("status", "policy", "budget")
_UNDECIDED = (ReleaseState.AWAITING_APPROVAL, ReleaseState.BUILDING)


@dataclass(frozen=True)
class Board:
    move: PointerMove | None
    readiness: FallbackReadiness
    alarms: Sequence[Alarm]
    fleet: Fleet
    candidate: Release | None
    others_awaiting: int
    building: Sequence[Progress]
    moves: Sequence[PointerMove]
    has_training_worker: bool
    has_gate_worker: bool
    fingerprints: dict[Hashable, str] = field(default_factory=dict)
    """Of what was rendered from this reading, for `common.pages.render_live`."""

    @property
    def is_moving(self) -> bool:
        """Whether the page will change soon: a release is being built, or bots are following a move."""
        return bool(self.building) or (self.fleet.live > 0 and not self.fleet.has_converged)

    @property
    def is_on_fallback(self) -> bool:
        return self.move is not None and self.move.kind in (MoveKind.PIN, MoveKind.OFFLINE)

    @property
    def live(self) -> Release | None:
        return self.move.release if self.move else None

    @property
    def way_back(self) -> Release | None:
        """After a pin, the release that was live before and can be restored."""
        earlier = [move.release for move in self.moves if move.release not in (None, self.live)]
        releases = [row for row in earlier if row is not None and Action.RESTORE in row.allowed_actions]
        return releases[0] if releases and self.is_on_fallback else None

    @cached_property
    def candidate_gate_table(self) -> GateTable | None:
        return _load_gate_table(self.candidate)

    @cached_property
    def live_gate_table(self) -> GateTable | None:
        return _load_gate_table(self.live)

    @cached_property
    def policy_preview(self) -> PolicyPreview | None:
        """What the policy in force would decide about the candidate."""
        return preview_policy(self.candidate)


_last: tuple[float, Board] | None = None
"""When this process last read the board for a browser that refreshes it, by time.monotonic(); and what it read."""
_reading = threading.Lock()


def load_board_for_refresh() -> Board:
    """The board, at most BOARD_SHARED_SECONDS old: one reading serves all browsers that refresh it.

    Raises Unavailable where another browser's reading takes too long.
    """
    global _last
    if not _reading.acquire(timeout=MAX_WAIT_SECONDS):
        raise Unavailable("The database is slow. The board is read again shortly.")
    try:
        now = time.monotonic()
        if _last is None or now - _last[0] >= settings.BOARD_SHARED_SECONDS:
            _last = now, load_board()
        return _last[1]
    finally:
        _reading.release()


def load_board() -> Board:
    awaiting = _query_candidates().filter(status__state=ReleaseState.AWAITING_APPROVAL).count()
    candidate = _find_candidate()
    building = Release.objects.select_related(*_RELATED).filter(status__state=ReleaseState.BUILDING)
    moves = PointerMove.objects.select_related("release__status", "previous__release")
    is_awaiting = candidate is not None and candidate.state == ReleaseState.AWAITING_APPROVAL
    queues = {queue for worker in list_alive_workers() for queue in worker.queues.split(",")}
    readiness, move = check_fallback_cached(), _load_move()
    return Board(
        move=move,
        readiness=readiness,
        alarms=list_alarms(readiness, move),
        fleet=count_bots(move, pointer.get_announced(), pointer.get_pinnable()),
        candidate=candidate,
        others_awaiting=awaiting - is_awaiting,
        building=[load_progress(release) for release in building.prefetch_related("budget__runs")],
        moves=list(moves[:MOVES_SHOWN]),
        has_training_worker="training" in queues,
        has_gate_worker="gates" in queues,
    )


def _load_gate_table(release: Release | None) -> GateTable | None:
    return build_gate_table(release, list_release_coins(release)) if release else None


def _load_move() -> PointerMove | None:
    """The current move, with everything that the page shows about its release."""
    move = pointer.get_current()
    if move is not None and move.release is not None:
        prefetch_related_objects([move.release], "coins__dataset")
    return move


def _query_candidates() -> QuerySet[Release]:
    return Release.objects.filter(purpose=Purpose.CANDIDATE).select_related(*_RELATED)


def _find_candidate() -> Release | None:
    """The candidate to show: one that awaits approval, else one being built, else the last one if it was refused."""
    candidates = _query_candidates().prefetch_related("budget__runs", "coins__dataset")
    for state in _UNDECIDED:
        if candidate := candidates.filter(status__state=state).first():
            return candidate
    last = candidates.first()
    return last if last and last.state in (ReleaseState.REJECTED, ReleaseState.DECLINED) else None
