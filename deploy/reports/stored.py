"""Reads the two releases of a report from the database."""

from common.errors import InvalidInput, NotFound
from deploy.models import PointerMove, Release, ReleaseCoin
from deploy.outcomes import list_release_coins
from deploy.pointer import pointer
from deploy.reports.comparison import ComparedCoin, ComparedRelease, Comparison, compare
from deploy.rules import MoveKind

_OWN_MERIT = (MoveKind.INHERITED, MoveKind.SWAP)


def compare_releases(release: Release, against: int | None = None) -> Comparison:
    """Compare the release with another, or with what the bots ran when it was launched.

    Raises NotFound when the release `against` does not exist, InvalidInput when it is the same one.
    """
    before = _find_release(release, against) if against is not None else find_previous_release(release)
    return compare(_read_release(release), _read_release(before) if before else None)


def find_previous_release(release: Release) -> Release | None:
    """The release that was live by a swap, or inherited, when this one was launched; never one that was pinned.

    For the first release of all it is the fallback.
    """
    moves = PointerMove.objects.filter(kind__in=_OWN_MERIT).exclude(release=release).select_related("release")
    move = moves.filter(moved_at__lte=release.created_at).first() or moves.last()
    if move is not None:
        return move.release
    registered = pointer.get_fallback()
    return registered if registered != release else None


def _find_release(release: Release, number: int) -> Release:
    if number == release.pk:
        raise InvalidInput(
            f"A report compares {release} with another release, not with itself.", field="against"
        )
    other = Release.objects.select_related("status", "policy").filter(pk=number).first()
    if other is None:
        raise NotFound(f"There is no release {number} to compare {release} with.")
    return other


def _read_release(release: Release) -> ComparedRelease:
    release_coins = list_release_coins(release)
    return ComparedRelease(
        release=release.pk,
        line=release.line,
        state=release.state,
        policy=release.policy.number,
        is_simulated=any(release_coin.dataset.is_simulated for release_coin in release_coins),
        launched_by=release.launched_by,
        launched_at=release.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        coins={release_coin.coin.symbol: _read_coin(release_coin) for release_coin in release_coins},
    )


def _read_coin(release_coin: ReleaseCoin) -> ComparedCoin:
    bundle = release_coin.bundle.digest if release_coin.bundle else None
    if release_coin.diagnosis is None:
        return ComparedCoin(release_coin.coin.symbol, bundle=bundle)
    return ComparedCoin(
        coin=release_coin.coin.symbol,
        document=release_coin.diagnosis.document,
        policy=release_coin.diagnosis.policy_document,
        outcomes={result.gate: result.outcome for result in release_coin.diagnosis.results.all()},
        verdict=release_coin.diagnosis.verdict,
        diagnosis=release_coin.diagnosis.pk,
        bundle=bundle,
    )
