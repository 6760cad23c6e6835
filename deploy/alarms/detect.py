"""The conditions that call for a person, detected each time from the present state."""

from collections.abc import Iterator, Sequence

from django.utils import timezone

from accounts import tokens
from audit import triggers
from deploy import outcomes
from deploy.alarms import backups, clock, reconcile_pass, stored_files
from deploy.bots import fleet
from deploy.bots import live_windows as live
from deploy.models import Alarm, PointerMove, Release
from deploy.pointer import pointer
from deploy.pointer.fallback import FallbackReadiness, check_fallback_cached
from deploy.rules import AlarmName, BotState, MoveKind, Severity
from deploy.serving import signing
from machines.control import problems

BOTS_NAMED = 3


def list_alarms(readiness: FallbackReadiness | None = None, move: PointerMove | None = None) -> list[Alarm]:
    """Every alarm of this moment, with the time since when, where that is known. Not rows: those are the history.

    A caller that has read the fallback's readiness or the pointer passes it.
    """
    since = {(a.name, a.sentence): a.raised_at for a in Alarm.objects.filter(cleared_at=None)}
    alarms = list(detect_alarms(readiness or check_fallback_cached(), move))
    for alarm in alarms:
        if raised_at := since.get((alarm.name, alarm.sentence)):
            alarm.raised_at = raised_at
    return alarms


def detect_alarms(readiness: FallbackReadiness, move: PointerMove | None = None) -> Iterator[Alarm]:
    """The conditions that hold now, as alarms that are not stored. Before the first pointer only machines have any.

    The text of an alarm stays the same as long as its condition does.
    """
    yield from _check_machines()
    move = move or pointer.get_current()
    if move is None:
        return
    yield from _check_fallback(readiness)
    if move.release is not None:
        yield from _check_missing_coins(move.release)
        yield from _check_live_release(move.release)
        if move.release != readiness.release:  # the fallback's own alarm says the same
            yield from _check_live_files(move, move.release)
    yield from _check_bots(move)
    yield from _check_tokens()
    yield from _check_predictions(move)
    if missing := triggers.find_missing():
        yield _critical(
            AlarmName.GUARDS,
            f"{len(missing)} database guards are missing or altered, so the pointer does not move: {_name_some(missing)}.",
            "Run `manage.py migrate`, which installs them. Find out who removed them, and run `manage.py verify_audit`.",
        )
    if bots := fleet.list_bots_ahead_of_chain():
        yield _critical(
            AlarmName.AUDIT,
            "The audit chain was cut short or rewritten: it lacks the end that these bots saw signed:"
            f" {_name_some(bots)}.",
            "Run `manage.py verify_audit`, and compare the database with its last backup. Where a backup was restored, an"
            " approver advances the revision: `manage.py advance_revision --by N --reason …`.",
        )
    backup_problem, drill_problem = backups.find_problems()
    if backup_problem:
        yield _warning(AlarmName.BACKUP, backup_problem, backups.REMEDY)
    if drill_problem:
        yield _warning(AlarmName.DRILL, drill_problem, backups.DRILL_REMEDY)
    yield from detect_own_alarms(move)


def _check_machines() -> Iterator[Alarm]:
    """Also before the first pointer: a machine costs money from the first launch on."""
    if overdue := next(problems.find_overdue(), None):
        yield _critical(
            AlarmName.MACHINE,
            overdue,
            "Look at the instance in the console of the cloud, and stop it there if it runs. Then find out why the service"
            " could not: the page Machines shows its last answer.",
        )
    if reached := problems.find_limit_reached():
        yield _warning(
            AlarmName.MACHINE_LIMIT,
            reached,
            "An approver raises the monthly limit on the page Machines, or the runs wait for the next month: cancel them.",
        )


def detect_own_alarms(move: PointerMove | None = None) -> Iterator[Alarm]:
    """What this process finds about itself, its machine, and whether reconcile still works."""
    if reason := signing.find_problem(move):
        yield _critical(
            AlarmName.SIGNING,
            "Bots get no signed snapshot: they keep what they have, and follow no move, not even a pin.",
            reason,
        )
    elif problem := signing.find_log_problem():
        yield _critical(
            AlarmName.REVISION_LOG,
            "The next move cannot be signed, so bots would not follow it, not even a pin.",
            problem,
        )
    if problem := clock.find_problem():
        yield _critical(AlarmName.CLOCK, problem, clock.REMEDY)
    if problem := reconcile_pass.find_problem():
        yield _critical(AlarmName.RECONCILE, problem, reconcile_pass.REMEDY)


def _check_fallback(readiness: FallbackReadiness) -> Iterator[Alarm]:
    release = readiness.release
    if release is None:
        yield _critical(
            AlarmName.FALLBACK,
            "No fallback is registered: a pin would send every bot offline.",
            "Launch a release of v5 for the purpose “fallback”, and have another person register it.",
        )
    elif readiness.problems:
        yield _critical(
            AlarmName.FALLBACK,
            f"The fallback {release.line} (release {release.pk}) is not ready, so a pin would send every bot offline: "
            f"{readiness.problem}.",
            "Launch a new release of v5 for the purpose “fallback”, and have another person register it; or restore its"
            " damaged files from a copy. It is measured again automatically.",
        )
    elif readiness.unconfirmed:
        yield _warning(
            AlarmName.FALLBACK,
            f"It is not certain that the fallback {release.line} (release {release.pk}) still works; a pin would "
            f"use it all the same: {'; '.join(readiness.unconfirmed)}.",
            "It is measured again automatically. If this stays for more than a few minutes, check that a worker takes the"
            " gates queue, that reconcile runs and that the file store answers.",
        )


def _check_missing_coins(live: Release) -> Iterator[Alarm]:
    lacking = outcomes.list_missing_coins(live)
    if lacking:
        yield _critical(
            AlarmName.COINS,
            f"What the bots run, {live.line} (release {live.pk}), has no model for {', '.join(lacking)}: they answer "
            "neutral there, and it no longer counts as passed.",
            f"Launch a release that carries {', '.join(lacking)}, or make the coin optional again.",
        )


def _check_live_release(live: Release) -> Iterator[Alarm]:
    """A live release that no move would serve again stays live until a move replaces it."""
    if blocker := pointer.find_serving_blocker(live):
        yield _critical(
            AlarmName.UNFIT,
            f"The bots run a release that this service would not serve: {blocker}",
            "Pin the fallback (or offline, where it is not ready), then launch a release on real candles.",
        )


def _check_live_files(move: PointerMove, live: Release) -> Iterator[Alarm]:
    """Bots verify each file, so none runs changed bytes. But a bot that lacks them cannot load the release any more."""
    if damaged := stored_files.find_damaged(live):
        yield _critical(
            AlarmName.FILES,
            f"Stored files of what the bots run, {live.line} (release {live.pk}), are missing or changed:"
            f" {_name_some(damaged)}. A bot that starts now stays without a model.",
            "Restore the files from a copy of the store, or pin the fallback.",
        )
    elif stored_files.has_unread(move):
        yield _warning(
            AlarmName.FILES,
            f"Stored files of what the bots run, {live.line} (release {live.pk}), could not be read for a long time: it is"
            " not known whether they are whole.",
            "Check that the file store answers, and that reconcile reaches it. Bots that run the release go on.",
        )


def _check_bots(move: PointerMove) -> Iterator[Alarm]:
    problem_bots = fleet.list_problem_bots(move)
    if bots := problem_bots.get(BotState.MIXTURE):
        yield _critical(
            AlarmName.MIXTURE,
            f"A bot runs something else than the release of its revision: {_name_some(bots)}.",
            "Stop it, empty its cache folder and start it again. The page Bots shows the difference, the audit event"
            " bot.mixture what it reported.",
        )
    if bots := problem_bots.get(BotState.BEHIND):
        yield _critical(
            AlarmName.BEHIND,
            f"These bots have not followed the pointer to revision {move.revision}: {_name_some(bots)}.",
            "Read its last error on the page Bots; restart it, or stop it if it must not trade on its present models.",
        )
    if bots := problem_bots.get(BotState.SILENT):
        yield _warning(
            AlarmName.SILENT,
            f"These bots no longer report, so it is not known what they run: {_name_some(bots)}.",
            "Check that they run and reach this service. Retire a bot that will not come back, on the page Bots or with"
            " `manage.py retire_bot`. A bot that is closed by its program, and not killed, says so and raises no alarm.",
        )


def _check_tokens() -> Iterator[Alarm]:
    """A bot whose token expired follows no move any more, not even a pin."""
    now, remedy = (
        timezone.now(),
        "Issue another token (`manage.py people --user NAME --token bot`), give it to the bot",
    )
    by_end: dict[bool, list[str]] = {True: [], False: []}
    for token in tokens.list_expiring_of_bots():
        if token.expires_at is not None:
            name = f"{token.user.username}'s token {token.pk} ({token.expires_at:%Y-%m-%d})"
            by_end[token.expires_at <= now].append(name)
    if by_end[True]:
        yield _critical(
            AlarmName.TOKENS,
            f"Tokens of bots have expired, so a bot that still uses one is refused: {_name_some(by_end[True])}.",
            f"{remedy}, and revoke this one (`--revoke N`).",
        )
    if by_end[False]:
        yield _warning(
            AlarmName.TOKENS,
            f"Tokens of bots expire within {tokens.WARNING_TIME.days} days: {_name_some(by_end[False])}.",
            f"{remedy}, and then revoke this one (`--revoke N`).",
        )


def _check_predictions(move: PointerMove) -> Iterator[Alarm]:
    """Without figures, which change with every window; the release's page shows them."""
    status = live.load_live_gate_status(move)
    if status is None:
        return
    if status.breaching and not status.must_pin:
        is_on_fallback = status.move.kind == MoveKind.PIN
        build = _critical if is_on_fallback else _warning
        yield build(
            AlarmName.LIVE,
            f"What these bots predict on revision {status.move.revision} breaches the live gates: "
            f"{_name_some(sorted({str(bot) for bot in status.breaching_bots}))}.",
            "The fallback's answers are not finite, and nothing else can be pinned: stop the bots and launch another."
            if is_on_fallback
            else "Most owners of bots report no breach, so the pointer stays: check these bots' candles, or stop them.",
        )
    if status.drifting:
        yield _warning(
            AlarmName.DRIFT,
            f"Predictions on revision {status.move.revision} drift from the gate window: "
            f"{', '.join(sorted({window.coin.symbol for window in status.drifting}))}.",
            "Compare live with the gate window on the release's page: where the market has changed for good, train again.",
        )


def _critical(name: AlarmName, sentence: str, remedy: str) -> Alarm:
    return Alarm(name=name, severity=Severity.CRITICAL, sentence=sentence, remedy=remedy)


def _warning(name: AlarmName, sentence: str, remedy: str) -> Alarm:
    return Alarm(name=name, severity=Severity.WARNING, sentence=sentence, remedy=remedy)


def _name_some(bots: Sequence[str]) -> str:
    """A few by name. A count would change with every bot that follows, and make it another alarm each time."""
    named = ", ".join(bots[:BOTS_NAMED])
    return f"{named} and others" if len(bots) > BOTS_NAMED else named
