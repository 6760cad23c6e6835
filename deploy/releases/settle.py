"""Advancing a release: start what is due, settle what is complete.

`advance` reads the database and acts on it. It is called after every committed transition, and again by `reconcile` every
few seconds, so that nothing depends on a message or on a process that may have died.
"""

import logging
from functools import partial

from django.db import models
from django.utils import timezone

from accounts.roles import GATE, Actor, Role
from audit import services as audit
from common import correlation
from deploy import outcomes
from deploy.models import Release, ReleaseCoin, ReleaseStatus
from deploy.pointer import pointer
from deploy.pointer.fallback import FallbackReadiness, check_fallback
from deploy.pointer.pin import pin_in_transaction
from deploy.rules import Outcome, Purpose, ReleaseState, Settlement, must_pin
from deploy.rules import settle as decide
from gates.models import Measurement
from gates.services import judging, measuring
from training.models import TrainingRun
from training.rules import JobState
from training.services import runs

logger = logging.getLogger(__name__)

_OPEN_STATES = (ReleaseState.BUILDING, ReleaseState.LIVE)


def advance(release: Release) -> None:
    """Start what is due in this release, and settle it once every required coin has an outcome."""
    release = Release.objects.select_related("status", "policy", "budget").get(pk=release.pk)
    if release.state not in _OPEN_STATES:
        return
    with correlation.resume(release.origin, release_id=release.pk):
        _advance(release)


def _advance(release: Release) -> None:
    early_end = _find_early_end(release)
    if early_end is None:
        for release_coin in outcomes.list_release_coins(release):
            _advance_coin(release, release_coin)
    if release.state == ReleaseState.BUILDING:
        settle(release, ended_early=early_end)


def advance_quietly(release_id: int) -> None:
    """Advance after a commit: a failure is logged, and `reconcile` tries again within seconds."""
    try:
        advance(Release.objects.get(pk=release_id))
    except Exception:
        logger.exception("release %s could not be advanced; reconcile will try again", release_id)


def advance_for(obj: models.Model) -> None:
    """Advance the releases that a run or a measurement belongs to, once its state has changed."""
    if not isinstance(obj, TrainingRun | Measurement) or not obj.has_ended:
        return
    chosen = {"bundle": obj.bundle_id}
    if isinstance(obj, TrainingRun):
        chosen = {"run": obj.reproduces_id or obj.pk}
    open_coins = ReleaseCoin.objects.filter(release__status__state__in=_OPEN_STATES, **chosen)
    for key in open_coins.values_list("pk", flat=True):
        _advance_coin_quietly(key)


def _advance_coin_quietly(key: int) -> None:
    """Advance one coin of a release, and settle the release once its last coin has an outcome.

    To advance the whole release after each of its jobs would cost the square of its coins.
    """
    try:
        release_coin = outcomes.find_release_coin(key)
        release = release_coin.release
        if _find_early_end(release) is not None:
            advance(release)
            return
        with correlation.resume(release.origin, release_id=release.pk):
            _advance_coin(release, release_coin)
            if release.state == ReleaseState.BUILDING and not outcomes.has_unfinished_coin(release):
                settle(release)
    except Exception:
        logger.exception("coin %s of a release could not be advanced; reconcile will try again", key)


def settle(release: Release, *, ended_early: str | None = None) -> None:
    """Settle a building release once every required coin has an outcome, or at once when it `ended_early`.

    If all passed, it awaits approval (rule 3, docs/rules.md#3). If any did not, it is rejected, and the fallback is pinned
    unless the live release has itself passed (rule 4, docs/rules.md#4).
    """
    if _compute_settlement(release, release.status, ended_early) is None:
        return  # the fallback's files are hashed only when it may be needed
    readiness = check_fallback()
    with correlation.span("release.settle"), audit.locked():
        status = ReleaseStatus.objects.get(pk=release.pk)
        settlement = _compute_settlement(release, status, ended_early)
        if settlement is None:
            return
        reason = settlement.reason
        audit.transition(status, settlement.state, actor=GATE, reason=reason, settled_at=timezone.now())
        if settlement.state == ReleaseState.REJECTED and release.purpose == Purpose.CANDIDATE:
            pin_unless_live_passed(f"{release} rejected: {reason}", actor=GATE, readiness=readiness)
    logger.info("%s: %s, %s", release, settlement.state, reason)
    if settlement.state == ReleaseState.REJECTED:
        stop_runs(release, reason)


def _find_early_end(release: Release) -> str | None:
    if release.status.cancel_requested_at is not None:
        return "cancelled"  # by a process that died before it settled the release
    return "not finished by its deadline" if release.is_overdue else None


def pin_unless_live_passed(reason: str, *, actor: object, readiness: FallbackReadiness) -> None:
    """Rule 4 (docs/rules.md#4), in the caller's transaction."""
    move = pointer.get_current()
    live_passed = outcomes.has_passed_own_policy(move.release) if move else False
    if must_pin(pointer_kind=move.kind if move else None, live_passed=live_passed):
        pin_in_transaction(reason, actor=actor, readiness=readiness)


def _compute_settlement(
    release: Release, status: ReleaseStatus, ended_early: str | None
) -> Settlement | None:
    if status.state != ReleaseState.BUILDING:
        return None
    by_coin = {row.coin_id: row for row in outcomes.list_release_coins(release)}
    found = [
        _find_required_outcome(coin.symbol, by_coin.get(coin.pk), ended_early)
        for coin in outcomes.list_required_coins()
    ]
    known = [outcome for outcome in found if outcome is not None]
    if len(known) < len(found):
        return None
    if status.cancel_requested_at is not None and not any(outcome.missing for outcome in known):
        # It was measured to the end, but cancelled.
        return Settlement(ReleaseState.REJECTED, ended_early or "cancelled")
    if release.purpose == Purpose.INHERITED:
        lost = [line for outcome in known if outcome.missing for line in outcome.failures()]
        return Settlement(ReleaseState.REJECTED, "; ".join(lost)) if lost else None
    return decide(release.purpose, known)


def _find_required_outcome(
    symbol: str, release_coin: ReleaseCoin | None, ended_early: str | None
) -> Outcome | None:
    if release_coin is None:
        return Outcome(symbol, missing="became required after this release was launched")
    outcome = outcomes.find_outcome(release_coin)
    return outcome or (Outcome(symbol, missing=ended_early) if ended_early else None)


def _advance_coin(release: Release, release_coin: ReleaseCoin) -> None:
    if release_coin.bundle is None and release_coin.run is None:
        _start_run(release, release_coin)
    if release_coin.bundle is None and release_coin.run is not None and release_coin.run.bundle is not None:
        _write_once(release_coin, bundle=release_coin.run.bundle)
    second = release_coin.second_run
    if second is not None and not second.has_ended:
        return  # it is measured with both
    if release_coin.bundle is not None and release_coin.diagnosis is None:
        # An equal run shares its bundle with an earlier release. A measurement that failed then must not fail this one, and
        # one that knows no second training, or another, does not do.
        measurement = measuring.measure(
            release_coin.bundle,
            release_coin.dataset,
            actor=GATE,
            since=release.created_at,
            second_run=second,
        )
        if measurement.has_ended:  # a failed measurement is judged too: every gate is an error then
            with correlation.span("diagnosis.judge", measurement_id=measurement.pk):
                _write_once(release_coin, diagnosis=judging.judge(measurement, release.policy))


def _start_run(release: Release, release_coin: ReleaseCoin) -> None:
    with audit.locked():
        release_coin.refresh_from_db(fields=["run"])
        status = ReleaseStatus.objects.get(pk=release.pk)
        # Settled or cancelled since it was read: nobody would stop the run, and it would cost money.
        if release_coin.run_id is not None or status.state != release.state or status.cancel_requested_at:
            return
        launch = partial(
            runs.launch_run,
            coin=release_coin.coin,
            dataset=release_coin.dataset,
            line=release.line,
            parameters=release.parameters,
            seed=release.seed,
            budget=release.budget,
            actor=Actor(release.launched_by, frozenset({Role.OPERATOR})),  # checked at the launch
        )
        run = launch()
        if release.is_reproduced:
            launch(reproduces=run)
        _write_once(release_coin, run=run)


def _write_once(release_coin: ReleaseCoin, **column: models.Model) -> None:
    """Fill one empty column of a release's coin; the first writer wins."""
    ((name, value),) = column.items()
    ReleaseCoin.objects.filter(pk=release_coin.pk, **{f"{name}__isnull": True}).update(**column)
    setattr(release_coin, name, value)


def stop_runs(release: Release, reason: str) -> None:
    of_release = TrainingRun.objects.filter(budget=release.budget).order_by("id")
    for run in of_release.filter(state__in=(JobState.QUEUED, JobState.RUNNING)):
        runs.cancel_unneeded(run, f"its release was rejected: {reason}")
