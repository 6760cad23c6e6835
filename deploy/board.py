"""What the board says: the pointer, the fallback, the candidate, what is being built, the last moves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.core.cache import cache
from django.db.models import QuerySet
from django.utils import timezone

from deploy import pointer
from deploy.matrix import Matrix, matrix
from deploy.models import PointerMove, Release
from deploy.outcomes import places_of
from deploy.progress import Progress, progress
from deploy.rules import MoveKind, Purpose, ReleaseState
from deploy.services import pinning
from training.workers import alive_workers

MOVES_SHOWN = 6
READY_FOR_SECONDS = 20
_READINESS = "fallback-readiness"
_RELATED = ("status", "policy", "budget")
_UNDECIDED = (ReleaseState.AWAITING_APPROVAL, ReleaseState.BUILDING)


@dataclass(frozen=True)
class Readiness:
    """Whether the fallback could be pinned, as it was found a few seconds ago."""

    release: Release | None
    problem: str | None
    checked_at: datetime


@dataclass(frozen=True)
class Board:
    now: PointerMove | None
    readiness: Readiness
    candidate: Release | None
    others_awaiting: int
    building: Sequence[Progress]
    moves: Sequence[PointerMove]
    has_training_worker: bool
    has_gate_worker: bool

    @property
    def is_moving(self) -> bool:
        return bool(self.building)

    @property
    def is_on_fallback(self) -> bool:
        return self.now is not None and self.now.kind in (MoveKind.PIN, MoveKind.OFFLINE)

    @property
    def live(self) -> Release | None:
        return self.now.release if self.now else None


def board() -> Board:
    awaiting = _candidates().filter(status__state=ReleaseState.AWAITING_APPROVAL).count()
    candidate = _candidate()
    building = Release.objects.select_related(*_RELATED).filter(status__state=ReleaseState.BUILDING)
    moves = PointerMove.objects.select_related("release", "previous__release")
    is_awaiting = candidate is not None and candidate.state == ReleaseState.AWAITING_APPROVAL
    queues = {queue for worker in alive_workers() for queue in worker.queues.split(",")}
    return Board(
        now=pointer.current(),
        readiness=readiness(),
        candidate=candidate,
        others_awaiting=awaiting - is_awaiting,
        building=[progress(release) for release in building.prefetch_related("budget__runs")],
        moves=list(moves[:MOVES_SHOWN]),
        has_training_worker="training" in queues,
        has_gate_worker="gates" in queues,
    )


def matrix_of(release: Release | None) -> Matrix | None:
    return matrix(places_of(release)) if release else None


def readiness() -> Readiness:
    """The fallback's fitness, looked at no more than every few seconds: it hashes every file."""
    found: Readiness | None = cache.get(_READINESS)
    registered = pointer.fallback()
    if found is None or found.release != registered:
        fitness = pinning.fallback_fitness()
        found = Readiness(fitness.release, fitness.problem or fitness.unchecked, timezone.now())
        cache.set(_READINESS, found, READY_FOR_SECONDS)
    return found


def _candidates() -> QuerySet[Release]:
    return Release.objects.filter(purpose=Purpose.CANDIDATE).select_related(*_RELATED)


def _candidate() -> Release | None:
    """What a person should look at first: what awaits them, else what is being built, else what was tried last."""
    candidates = _candidates().prefetch_related("budget__runs", "coins__dataset")
    for state in _UNDECIDED:
        if found := candidates.filter(status__state=state).first():
            return found
    last = candidates.first()
    return last if last and last.state in (ReleaseState.REJECTED, ReleaseState.DECLINED) else None
