"""What a person must be told without having asked: found anew each time, from the world as it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from deploy import outcomes
from deploy.bots import fleet
from deploy.bots import live_windows as live
from deploy.models import Alarm, PointerMove, Release
from deploy.pointer import pointer
from deploy.pointer.fallback import Fitness, readiness
from deploy.rules import AlarmName, BotState, MoveKind, Severity
from deploy.serving import signing

BOTS_NAMED = 3


@dataclass(frozen=True)
class Trouble:
    """What is wrong, and what to do about it. The same words while it is the same trouble."""

    name: AlarmName
    severity: Severity
    sentence: str
    remedy: str
    raised_at: datetime | None = None
    """When `reconcile` first found it; None when it has not looked since."""

    @property
    def is_critical(self) -> bool:
        return self.severity == Severity.CRITICAL


def troubles(fitness: Fitness | None = None, now: PointerMove | None = None) -> list[Trouble]:
    """Everything that is an alarm at this moment, each with the time since when, where that is known.

    Whoever knows the fallback's fitness, or where the pointer stands, passes it.
    """
    since = {(a.name, a.sentence): a.raised_at for a in Alarm.objects.filter(cleared_at=None)}
    return [
        Trouble(t.name, t.severity, t.sentence, t.remedy, since.get((t.name, t.sentence)))
        for t in found(fitness or readiness(), now)
    ]


def found(fitness: Fitness, now: PointerMove | None = None) -> Iterator[Trouble]:
    """The alarms that the world gives reason for. Before the first pointer there is nothing to hold anybody on."""
    now = now or pointer.current()
    if now is None:
        return
    yield from _of_the_fallback(fitness)
    if now.release is not None:
        yield from _of_missing_coins(now.release)
        yield from _of_what_is_live(now.release)
    yield from _of_the_bots(now)
    yield from _of_their_predictions(now)
    if reason := signing.why_not():
        yield _of_signing(reason)


def _of_the_fallback(fitness: Fitness) -> Iterator[Trouble]:
    release = fitness.release
    if release is None:
        yield Trouble(
            AlarmName.FALLBACK,
            Severity.CRITICAL,
            "No fallback is registered: a pin would send every bot offline.",
            "Launch a release of v5 for the purpose “fallback”, and have another person register it.",
        )
    elif fitness.against:
        yield Trouble(
            AlarmName.FALLBACK,
            Severity.CRITICAL,
            f"The fallback {release.line} (release {release.pk}) is not fit, so a pin would send every bot offline: "
            f"{fitness.problem}.",
            "Launch a new release of v5 for the purpose “fallback”, and have another person register it; or bring its"
            " damaged files back from a copy. It is measured again by itself.",
        )
    elif fitness.unconfirmed:
        yield Trouble(
            AlarmName.FALLBACK,
            Severity.WARNING,
            f"Nobody can say whether the fallback {release.line} (release {release.pk}) still works; a pin would hold "
            f"the bots on it all the same: {'; '.join(fitness.unconfirmed)}.",
            "It is measured again by itself: if this stays for more than a few minutes, see that a worker takes the"
            " gates queue, that reconcile runs and that the file store answers.",
        )


def _of_missing_coins(live: Release) -> Iterator[Trouble]:
    lacking = outcomes.required_coins_lacking_in(live)
    if lacking:
        yield Trouble(
            AlarmName.COINS,
            Severity.CRITICAL,
            f"What the bots run, {live.line} (release {live.pk}), holds nothing for {', '.join(lacking)}: they answer "
            "neutral there, and it no longer counts as having passed.",
            f"Launch a release that carries {', '.join(lacking)}, or release the coin from being required.",
        )


def _of_what_is_live(live: Release) -> Iterator[Trouble]:
    """What no move would bring in front of a bot stays there until one takes it away."""
    if never := pointer.why_never(live):
        yield Trouble(
            AlarmName.UNFIT,
            Severity.CRITICAL,
            f"The bots run what this service would put in front of none: {never}",
            "Pin the bots, to the fallback or offline where it is not fit either; then launch a release on real candles.",
        )


def _of_signing(reason: str) -> Trouble:
    return Trouble(
        AlarmName.SIGNING,
        Severity.CRITICAL,
        "Bots get no signed snapshot: they keep what they have, and hear of no move, not even of a pin.",
        reason,
    )


def _of_the_bots(now: PointerMove) -> Iterator[Trouble]:
    troubled = fleet.troubled(now)
    if bots := troubled.get(BotState.MIXTURE):
        yield Trouble(
            AlarmName.MIXTURE,
            Severity.CRITICAL,
            f"What a bot runs is not what its revision's release holds: {_named(bots)}.",
            "Stop it, empty its cache folder and start it again. The page Bots says what differs, and the audit what it said"
            " (bot.mixture).",
        )
    if bots := troubled.get(BotState.BEHIND):
        yield Trouble(
            AlarmName.BEHIND,
            Severity.CRITICAL,
            f"Every bot must be on revision {now.revision}, and has not followed: {_named(bots)}.",
            "Read its last error on the page Bots; start it again, or stop it where it must not trade on what it has.",
        )
    if bots := troubled.get(BotState.SILENT):
        yield Trouble(
            AlarmName.SILENT,
            Severity.WARNING,
            f"Nobody knows what these bots run, they have fallen silent: {_named(bots)}.",
            "See whether they run and reach this service. A bot that is no longer needed: revoke its token.",
        )


def _of_their_predictions(now: PointerMove) -> Iterator[Trouble]:
    """Without figures, which change with every window; the release's page has them."""
    found = live.conduct(now)
    if found is None:
        return
    if found.breaching and not found.calls_for_a_pin:
        is_on_fallback = found.move.kind == MoveKind.PIN
        yield Trouble(
            AlarmName.LIVE,
            Severity.CRITICAL if is_on_fallback else Severity.WARNING,
            f"What these bots predict on revision {found.move.revision} breaches the live gates: "
            f"{_named(sorted({str(bot) for bot in found.bots}))}.",
            "The fallback answers what is no number, and nothing is left to pin: stop the bots, and launch a new fallback."
            if is_on_fallback
            else "Most live bots say otherwise, so the pointer stays: see what candles these bots are fed, or stop them.",
        )
    if found.wandering:
        yield Trouble(
            AlarmName.DRIFT,
            Severity.WARNING,
            f"What is predicted on revision {found.move.revision} wanders from what was judged: "
            f"{', '.join(sorted({window.coin.symbol for window in found.wandering}))}.",
            "Look at the release's page, live against the gate window: where the market has moved for good, train again.",
        )


def _named(bots: Sequence[str]) -> str:
    """A few by name: a count would change with every bot that follows, and make it another alarm each time."""
    named = ", ".join(bots[:BOTS_NAMED])
    return f"{named} and others" if len(bots) > BOTS_NAMED else named
