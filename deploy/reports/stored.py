"""The two releases of a report as they stand in the database."""

from common.errors import InvalidInput, NotFound
from deploy.models import PointerMove, Release, ReleaseCoin
from deploy.outcomes import list_release_coins
from deploy.pointer import pointer
from deploy.reports.comparison import Comparison, Judged, Side, compare
from deploy.rules import MoveKind

_OWN_MERIT = (MoveKind.INHERITED, MoveKind.SWAP)


def report(release: Release, against: int | None = None) -> Comparison:
    """The release against another, or against what the bots ran when it was launched.

    Raises NotFound when `against` is no release, InvalidInput when it is this very one.
    """
    before = _named(release, against) if against is not None else find_previous_release(release)
    return compare(_side(release), _side(before) if before else None)


def find_previous_release(release: Release) -> Release | None:
    """What was live on its own merits, or inherited, when this was launched: not what a pin held the bots on.

    For the first release of all, which was before any other, it is the fallback.
    """
    moves = PointerMove.objects.filter(kind__in=_OWN_MERIT).exclude(release=release).select_related("release")
    move = moves.filter(moved_at__lte=release.created_at).first() or moves.last()
    if move is not None:
        return move.release
    registered = pointer.get_fallback()
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
    release_coins = list_release_coins(release)
    return Side(
        release=release.pk,
        line=release.line,
        state=release.state,
        policy=release.policy.number,
        is_simulated=any(release_coin.dataset.is_simulated for release_coin in release_coins),
        launched_by=release.launched_by,
        launched_at=release.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        coins={release_coin.coin.symbol: _judged(release_coin) for release_coin in release_coins},
    )


def _judged(release_coin: ReleaseCoin) -> Judged:
    bundle = release_coin.bundle.digest if release_coin.bundle else None
    if release_coin.diagnosis is None:
        return Judged(release_coin.coin.symbol, bundle=bundle)
    return Judged(
        coin=release_coin.coin.symbol,
        document=release_coin.diagnosis.document,
        policy=release_coin.diagnosis.policy_document,
        outcomes={result.gate: result.outcome for result in release_coin.diagnosis.results.all()},
        verdict=release_coin.diagnosis.verdict,
        diagnosis=release_coin.diagnosis.pk,
        bundle=bundle,
    )
