"""The two releases of a report as they stand in the database."""

from common.errors import InvalidInput, NotFound
from deploy.models import PointerMove, Release, ReleaseCoin
from deploy.outcomes import places_of
from deploy.pointer import pointer
from deploy.reports.comparison import Comparison, Judged, Side, Word, compare
from deploy.rules import MoveKind
from gates.models import GateResult

_OWN_MERIT = (MoveKind.INHERITED, MoveKind.SWAP)


def report(release: Release, against: int | None = None) -> Comparison:
    """The release against another, or against what the bots ran when it was launched.

    Raises NotFound when `against` is no release, InvalidInput when it is this very one.
    """
    before = _named(release, against) if against is not None else usual_opponent(release)
    return compare(_side(release), _side(before) if before else None)


def usual_opponent(release: Release) -> Release | None:
    """What was live on its own merits, or inherited, when this was launched: not what a pin held the bots on.

    For the first release of all, which was before any other, it is the fallback.
    """
    moves = PointerMove.objects.filter(kind__in=_OWN_MERIT).exclude(release=release).select_related("release")
    move = moves.filter(moved_at__lte=release.created_at).first() or moves.last()
    if move is not None:
        return move.release
    registered = pointer.fallback()
    return registered if registered != release else None


def _named(release: Release, number: int) -> Release:
    if number == release.pk:
        raise InvalidInput(
            f"A report holds {release} against another one, not against itself.", field="against"
        )
    found = Release.objects.select_related("status", "policy").filter(pk=number).first()
    if found is None:
        raise NotFound(f"There is no release {number} to hold {release} against.")
    return found


def _side(release: Release) -> Side:
    places = places_of(release)
    return Side(
        release=release.pk,
        line=release.line,
        state=release.state,
        policy=release.policy.number,
        is_simulated=any(place.dataset.is_simulated for place in places),
        launched_by=release.launched_by,
        launched_at=release.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        coins={place.coin.symbol: _judged(place) for place in places},
    )


def _judged(place: ReleaseCoin) -> Judged:
    bundle = place.bundle.digest if place.bundle else None
    if place.diagnosis is None:
        return Judged(place.coin.symbol, bundle=bundle)
    return Judged(
        coin=place.coin.symbol,
        document=place.diagnosis.document,
        policy=place.diagnosis.frozen_policy,
        words={result.gate: _word(result) for result in place.diagnosis.results.all()},
        verdict=place.diagnosis.verdict,
        diagnosis=place.diagnosis.pk,
        bundle=bundle,
    )


def _word(result: GateResult) -> Word:
    return Word(
        verdict=result.verdict,
        observed=result.observed,
        threshold=result.threshold,
        sentence=result.sentence,
        is_required=result.is_required,
        figure=result.figure,
    )
