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
    rows = list_release_coins(release)
    return ComparedRelease(
        release=release.pk,
        line=release.line,
        state=release.state,
        policy=release.policy.number,
        interval_seconds=release.interval_seconds,
        is_simulated=any(row.dataset.is_simulated for row in rows),
        launched_by=release.launched_by,
        launched_at=release.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        coins={row.coin.symbol: _read_coin(row) for row in rows},
    )


def _read_coin(row: ReleaseCoin) -> ComparedCoin:
    symbol, bundle, diagnosis = row.coin.symbol, row.bundle.digest if row.bundle else None, row.diagnosis
    if diagnosis is None:
        return ComparedCoin(symbol, bundle=bundle)
    return ComparedCoin(
        coin=symbol,
        document=diagnosis.document,
        policy=diagnosis.policy_document,
        outcomes={result.gate: result.outcome for result in diagnosis.results.all()},
        verdict=diagnosis.verdict,
        diagnosis=diagnosis.pk,
        bundle=bundle,
    )
