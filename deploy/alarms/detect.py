"""The conditions that call for a person, detected each time from the present state."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from deploy import outcomes
from deploy.bots import fleet
from deploy.bots import live_windows as live
from deploy.models import Alarm, PointerMove, Release
from deploy.pointer import pointer
from deploy.pointer.fallback import FallbackReadiness, check_fallback_cached
from deploy.rules import AlarmName, BotState, MoveKind, Severity
from deploy.serving import signing

BOTS_NAMED = 3


@dataclass(frozen=True)
class AlarmCondition:
    """What is wrong, and what to do about it. The text stays the same as long as the condition does."""

    name: AlarmName
    severity: Severity
    sentence: str
    remedy: str
    raised_at: datetime | None = None
    """When `reconcile` first detected it; None when it has not run since."""

    @property
    def is_critical(self) -> bool:
        return self.severity == Severity.CRITICAL


def list_alarms(
    readiness: FallbackReadiness | None = None, move: PointerMove | None = None
) -> list[AlarmCondition]:
    """Every alarm of this moment, with the time since when, where that is known.

    A caller that has read the fallback's readiness or the pointer passes it.
    """
    since = {(a.name, a.sentence): a.raised_at for a in Alarm.objects.filter(cleared_at=None)}
    return [
        replace(condition, raised_at=since.get((condition.name, condition.sentence)))
        for condition in detect_conditions(readiness or check_fallback_cached(), move)
    ]


def detect_conditions(
    readiness: FallbackReadiness, move: PointerMove | None = None
) -> Iterator[AlarmCondition]:
    """The conditions that hold now. Before the first pointer there are none."""
    move = move or pointer.get_current()
    if move is None:
        return
    yield from _check_fallback(readiness)
    if move.release is not None:
        yield from _check_missing_coins(move.release)
        yield from _check_live_release(move.release)
    yield from _check_bots(move)
    yield from _check_predictions(move)
    if reason := signing.find_problem():
        yield AlarmCondition(
            AlarmName.SIGNING,
            Severity.CRITICAL,
            "Bots get no signed snapshot: they keep what they have, and hear of no move, not even of a pin.",
            reason,
        )


def _check_fallback(readiness: FallbackReadiness) -> Iterator[AlarmCondition]:
    release = readiness.release
    if release is None:
        yield AlarmCondition(
            AlarmName.FALLBACK,
            Severity.CRITICAL,
            "No fallback is registered: a pin would send every bot offline.",
            "Launch a release of v5 for the purpose “fallback”, and have another person register it.",
        )
    elif readiness.problems:
        yield AlarmCondition(
            AlarmName.FALLBACK,
            Severity.CRITICAL,
            f"The fallback {release.line} (release {release.pk}) is not ready, so a pin would send every bot offline: "
            f"{readiness.problem}.",
            "Launch a new release of v5 for the purpose “fallback”, and have another person register it; or restore its"
            " damaged files from a copy. It is measured again automatically.",
        )
    elif readiness.unconfirmed:
        yield AlarmCondition(
            AlarmName.FALLBACK,
            Severity.WARNING,
            f"It is not certain that the fallback {release.line} (release {release.pk}) still works; a pin would "
            f"use it all the same: {'; '.join(readiness.unconfirmed)}.",
            "It is measured again automatically. If this stays for more than a few minutes, check that a worker takes the"
            " gates queue, that reconcile runs and that the file store answers.",
        )


def _check_missing_coins(live: Release) -> Iterator[AlarmCondition]:
    lacking = outcomes.list_missing_coins(live)
    if lacking:
        yield AlarmCondition(
            AlarmName.COINS,
            Severity.CRITICAL,
            f"What the bots run, {live.line} (release {live.pk}), has no model for {', '.join(lacking)}: they answer "
            "neutral there, and it no longer counts as passed.",
            f"Launch a release that carries {', '.join(lacking)}, or make the coin optional again.",
        )


def _check_live_release(live: Release) -> Iterator[AlarmCondition]:
    """A live release that no move would serve again stays live until a move replaces it."""
    if blocker := pointer.find_serving_blocker(live):
        yield AlarmCondition(
            AlarmName.UNFIT,
            Severity.CRITICAL,
            f"The bots run a release that this service would not serve: {blocker}",
            "Pin the fallback (or offline, where it is not ready), then launch a release on real candles.",
        )


def _check_bots(move: PointerMove) -> Iterator[AlarmCondition]:
    problem_bots = fleet.list_problem_bots(move)
    if bots := problem_bots.get(BotState.MIXTURE):
        yield AlarmCondition(
            AlarmName.MIXTURE,
            Severity.CRITICAL,
            f"A bot runs something else than the release of its revision: {_name_some(bots)}.",
            "Stop it, empty its cache folder and start it again. The page Bots shows the difference, the audit event"
            " bot.mixture what it reported.",
        )
    if bots := problem_bots.get(BotState.BEHIND):
        yield AlarmCondition(
            AlarmName.BEHIND,
            Severity.CRITICAL,
            f"These bots have not followed the pointer to revision {move.revision}: {_name_some(bots)}.",
            "Read its last error on the page Bots; restart it, or stop it if it must not trade on its present models.",
        )
    if bots := problem_bots.get(BotState.SILENT):
        yield AlarmCondition(
            AlarmName.SILENT,
            Severity.WARNING,
            f"These bots no longer report, so it is not known what they run: {_name_some(bots)}.",
            "Check that they run and reach this service. Revoke the token of a bot that is no longer needed.",
        )


def _check_predictions(move: PointerMove) -> Iterator[AlarmCondition]:
    """Without figures, which change with every window; the release's page shows them."""
    status = live.load_live_gate_status(move)
    if status is None:
        return
    if status.breaching and not status.must_pin:
        is_on_fallback = status.move.kind == MoveKind.PIN
        yield AlarmCondition(
            AlarmName.LIVE,
            Severity.CRITICAL if is_on_fallback else Severity.WARNING,
            f"What these bots predict on revision {status.move.revision} breaches the live gates: "
            f"{_name_some(sorted({str(bot) for bot in status.breaching_bots}))}.",
            "The fallback's answers are not finite, and nothing else can be pinned: stop the bots and launch another."
            if is_on_fallback
            else "Most live bots report no breach, so the pointer stays: check these bots' candles, or stop them.",
        )
    if status.drifting:
        yield AlarmCondition(
            AlarmName.DRIFT,
            Severity.WARNING,
            f"Predictions on revision {status.move.revision} drift from the gate window: "
            f"{', '.join(sorted({window.coin.symbol for window in status.drifting}))}.",
            "Compare live with the gate window on the release's page: where the market has changed for good, train again.",
        )


def _name_some(bots: Sequence[str]) -> str:
    """A few by name. A count would change with every bot that follows, and make it another alarm each time."""
    named = ", ".join(bots[:BOTS_NAMED])
    return f"{named} and others" if len(bots) > BOTS_NAMED else named
