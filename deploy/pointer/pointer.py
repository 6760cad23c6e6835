"""The pointer: its current move, and the one function that appends another (rule 8, docs/rules.md#8)."""

import logging
from collections.abc import Mapping, Sequence

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from audit import services as audit
from audit import triggers
from audit.heads import KeptHead
from common import correlation
from common.errors import Conflict, Unavailable
from deploy.models import (
    FallbackRegistration,
    PointerMove,
    Release,
    ReleaseCoin,
    ReleaseStatus,
    ServiceIdentity,
)
from deploy.pointer import notify
from deploy.rules import MoveKind, ReleaseState
from gates.models import GatePolicy
from mlcore.quality.result import format_interval

logger = logging.getLogger(__name__)


def get_current() -> PointerMove | None:
    """The last move: what every bot must use. None until the service has inherited a release."""
    return PointerMove.objects.select_related("release__status", "policy").order_by("-revision").first()


def get_fallback() -> Release | None:
    """The registered fallback."""
    last = FallbackRegistration.objects.select_related("release__status").first()
    return last.release if last else None


def get_announced() -> Release | None:
    """The newest release that awaits approval: bots download and load its files ahead."""
    waiting = Release.objects.filter(status__state=ReleaseState.AWAITING_APPROVAL).order_by("-pk").first()
    return None if waiting is None or find_serving_blocker(waiting) else waiting


def get_pinnable() -> Release | None:
    """The fallback, where it may be served: bots keep it loaded, because a pin comes without warning."""
    registered = get_fallback()
    return None if registered is None or find_serving_blocker(registered) else registered


def find_interval_seconds() -> int | None:
    """The bar interval of this service, in seconds: that of every release that bots were told to use (rule 31).

    None before the first one: a fallback that was registered by mistake can still be replaced.
    """
    moves = PointerMove.objects.exclude(release=None).order_by("-revision")
    interval: int | None = moves.values_list("release__interval_seconds", flat=True).first()
    return interval


def require_interval(release: Release) -> None:
    """Raise Conflict where the bots of this service have bars of another interval than this release."""
    own = find_interval_seconds()
    if own is not None and own != release.interval_seconds:
        bars = f"bars of {format_interval(release.interval_seconds)}"
        raise Conflict(
            f"{str(release).capitalize()} on {bars} cannot be used here: the bots of this service have"
            f" bars of {format_interval(own)}. Name datasets of that interval, or set up another service for the other one."
        )


def find_serving_blocker(release: Release, release_coins: Sequence[ReleaseCoin] = ()) -> str | None:
    """Why this installation serves a release to no bot; None where nothing prevents it (rule 14).

    A simulated market has far stronger trends than a real one, so results on it say nothing about real money. Results on
    candles that were stored by mistake say nothing either. A caller that has read the release's coins passes them.
    """
    release_coins = release_coins or list(release.coins.select_related("coin", "dataset", "bundle__dataset"))
    if withdrawn := [p.coin.symbol for p in release_coins if _uses_withdrawn_dataset(p)]:
        return (
            f"{release} was trained or judged on candles that were withdrawn since ({', '.join(withdrawn)}), and is not"
            " served again. Launch one on other candles."
        )
    if settings.ALLOW_SIMULATED:
        return None
    coins = [
        p.coin.symbol for p in release_coins if p.dataset.is_simulated or (p.bundle and p.bundle.is_simulated)
    ]
    if not coins:
        return None
    return (
        f"{release} was trained or judged on simulated candles ({', '.join(coins)}), and this service does not serve such a"
        " release. Launch one on real candles; CRPBOT_ALLOW_SIMULATED=1 is for trials only."
    )


def _uses_withdrawn_dataset(release_coin: ReleaseCoin) -> bool:
    trained_on = release_coin.bundle.dataset if release_coin.bundle else None
    return release_coin.dataset.is_withdrawn or (trained_on is not None and trained_on.is_withdrawn)


def move(
    kind: MoveKind,
    release: Release | None,
    *,
    policy: GatePolicy,
    actor: object,
    reason: str,
    evidence: Sequence[Mapping[str, object]] = (),
) -> PointerMove:
    """Append the next revision and its event, in the caller's transaction; the event holds the `evidence`, if any.

    The caller has decided, and holds the audit head. Raises Unavailable while a database guard is missing or altered,
    Conflict when a guard rejects the move, or when the release has a serving blocker.
    """
    if release is not None and (why := find_serving_blocker(release)):
        raise Conflict(why)
    _require_guards()
    audit.lock_head()
    last = get_current()
    return _append(
        PointerMove(
            revision=last.revision + 1 if last else 1,
            previous=last,
            release=release,
            policy=policy,
            kind=kind,
        ),
        f"pointer.{kind}",
        actor=actor,
        reason=reason,
        evidence=evidence,
    )


def advance(by: int, *, lost_head: KeptHead | None, actor: object, reason: str) -> PointerMove:
    """Append a revision that is higher by `by` and repeats the last one, in the caller's transaction.

    The caller has decided, holds the audit head, and read the `lost_head` before, from the disk: its event states the loss.
    Raises as `move` does, and Conflict before the first pointer.
    """
    _require_guards()
    audit.lock_head()
    last = get_current()
    if last is None:
        raise Conflict("There is no pointer to advance.")
    return _append(
        PointerMove(
            revision=last.revision + by,
            previous=last,
            release=last.release,
            policy=last.policy,
            kind=last.kind,
            is_advance=True,
        ),
        "pointer.advanced",
        actor=actor,
        reason=f"{reason} — as revision {last.revision}: {last.reason}",
        lost_head=lost_head,
    )


def _require_guards() -> None:
    if missing := triggers.find_missing():
        raise Unavailable(
            f"The pointer does not move: {len(missing)} database triggers are missing or altered ({missing[0]}, …)."
            " Run `manage.py migrate`, which installs them."
        )


def _append(
    moved: PointerMove,
    event: str,
    *,
    actor: object,
    reason: str,
    evidence: Sequence[Mapping[str, object]] = (),
    lost_head: KeptHead | None = None,
) -> PointerMove:
    """Write the move with its event, as part of the trace of its release."""
    release = moved.release
    with (
        correlation.resume(
            release.origin if release else {}, **{"release_id": release.pk} if release else {}
        ),
        correlation.span("pointer.move", revision=moved.revision, kind=moved.kind),
    ):
        return _write(moved, event, actor=actor, reason=reason, evidence=evidence, lost_head=lost_head)


def _write(
    moved: PointerMove,
    event: str,
    *,
    actor: object,
    reason: str,
    evidence: Sequence[Mapping[str, object]],
    lost_head: KeptHead | None,
) -> PointerMove:
    moved.moved_by, moved.reason, moved.moved_at = str(actor), reason, timezone.now()
    detail = _describe_move(moved) | ({"evidence": [dict(each) for each in evidence]} if evidence else {})
    if lost_head is not None:
        detail[audit.LOST_HEAD] = {"seq": lost_head.seq, "hash": lost_head.hash}
    moved.audit_seq = audit.record(event, moved, actor=actor, reason=reason, detail=detail).seq
    moved.origin = correlation.capture()
    try:
        with transaction.atomic():
            moved.save(force_insert=True)
    except IntegrityError as refused:
        raise Conflict(
            f"The database refused to move the pointer: {str(refused).splitlines()[0]}"
        ) from refused
    transaction.on_commit(lambda: logger.info("%s: %s by %s", moved, moved.kind, actor), robust=True)
    notify.announce(moved.revision)
    return moved


def retire(release: Release | None, to: ReleaseState, *, actor: object, reason: str) -> None:
    """End the live state of this release, if it is live."""
    status = (
        ReleaseStatus.objects.filter(release=release, state=ReleaseState.LIVE).first() if release else None
    )
    if status is not None:
        audit.transition(status, to, actor=actor, reason=reason)


def _describe_move(moved: PointerMove) -> dict[str, object]:
    return {
        "service": ServiceIdentity.get_name(),
        "revision": moved.revision,
        "line": moved.release.line if moved.release else None,
        "release": moved.release_id,
        "policy": moved.policy.number if moved.policy else None,
        "bundles": moved.release.digests if moved.release else {},
    }
