"""Releases and the pointer: states, and the decisions that move it. No ORM, clock or I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from common.formatting import shorten_digest
from gates.catalogue.gate import GateOutcome

FALLBACK_GATES = ("bundle", "scaler", "finite_weights", "single_sample")
READY_GATES = (*FALLBACK_GATES, "schema")
"""What a fallback must pass today to be pinned: it settles on the four, under a policy that may be older than *schema*."""


class Purpose(StrEnum):
    """What a release is for."""

    CANDIDATE = "candidate"  # to be approved and swapped in
    FALLBACK = "fallback"  # to be registered as what a pin holds the bots on
    INHERITED = "inherited"  # what the bot ran before this service: revision 1, whatever it is worth


class ReleaseState(StrEnum):
    BUILDING = "building"
    AWAITING_APPROVAL = "awaiting_approval"
    STANDBY = "standby"  # a fallback: fit to be pinned
    LIVE = "live"
    SUPERSEDED = "superseded"
    ROLLED_BACK = "rolled_back"
    REJECTED = "rejected"
    DECLINED = "declined"


RELEASE_TRANSITIONS: Mapping[str, frozenset[str]] = {
    ReleaseState.BUILDING: frozenset(
        {ReleaseState.AWAITING_APPROVAL, ReleaseState.STANDBY, ReleaseState.LIVE, ReleaseState.REJECTED}
    ),
    ReleaseState.AWAITING_APPROVAL: frozenset(
        {ReleaseState.LIVE, ReleaseState.DECLINED, ReleaseState.REJECTED}
    ),
    ReleaseState.STANDBY: frozenset(),
    ReleaseState.LIVE: frozenset({ReleaseState.SUPERSEDED, ReleaseState.ROLLED_BACK}),
    ReleaseState.SUPERSEDED: frozenset({ReleaseState.LIVE}),
    ReleaseState.ROLLED_BACK: frozenset({ReleaseState.LIVE}),
    ReleaseState.REJECTED: frozenset(),
    ReleaseState.DECLINED: frozenset(),
}


class MoveKind(StrEnum):
    INHERITED = "inherited"
    SWAP = "swap"
    PIN = "pin"
    OFFLINE = "offline"


class KeyState(StrEnum):
    NEXT = "next"  # made, its public half given to bots, signs nothing yet
    ACTIVE = "active"  # signs every snapshot; two do during a rotation
    RETIRED = "retired"  # never signs again


KEY_TRANSITIONS: Mapping[str, frozenset[str]] = {
    KeyState.NEXT: frozenset({KeyState.ACTIVE, KeyState.RETIRED}),
    KeyState.ACTIVE: frozenset({KeyState.RETIRED}),
    KeyState.RETIRED: frozenset(),
}
MOST_ACTIVE_KEYS = 2
MOST_KEYS = 8
"""That are not retired: a bot takes no larger set of keys."""


class BackupKind(StrEnum):
    BACKUP = "backup"
    DRILL = "drill"


class BackupState(StrEnum):
    WAITING = "waiting"  # for reconcile, which starts a process for it
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # also where its process ended without a word


BACKUP_TRANSITIONS: Mapping[str, frozenset[str]] = {
    BackupState.WAITING: frozenset({BackupState.RUNNING}),
    BackupState.RUNNING: frozenset({BackupState.DONE, BackupState.FAILED}),
    BackupState.DONE: frozenset(),
    BackupState.FAILED: frozenset(),
}


class AlarmName(StrEnum):
    FALLBACK = "fallback"  # a pin has nothing fit to hold the bots on, or nobody knows whether it has
    COINS = "coins"  # what the bots run lacks a required coin
    UNFIT = "unfit"  # what the bots run is what this service would put in front of none
    FILES = "files"  # a stored file of what the bots run is missing or changed
    REVISION_LOG = (
        "revision_log"  # the folder of the keys cannot be written to: no further move can be signed
    )
    CLOCK = "clock"  # the service's clock jumped, or differs from those of database, Redis or bots
    RECONCILE = "reconcile"  # reconcile has not completed a pass for long
    GUARDS = "guards"  # database guards are missing or altered
    AUDIT = "audit"  # a bot saw an audit head that this chain does not hold
    SIGNING = "signing"  # nothing can be signed for the bots: no key, or a revision that was signed before
    MIXTURE = "mixture"  # a bot runs what its revision's release does not hold
    BEHIND = "behind"  # a bot that reports does not run what it must
    SILENT = "silent"  # a bot that reported lately no longer does
    TOKENS = "tokens"  # a bot's token expires soon, or expired lately
    LIVE = "live"  # what a bot predicts breaches the live gates, and too few others say so for a pin
    BACKUP = "backup"  # no backup was made for long, or the journal beside them cannot be written
    DRILL = "drill"  # the last drill failed, or was long ago
    MACHINE = "machine"  # a machine runs beyond its bound, or nobody can look at it
    MACHINE_LIMIT = "machine_limit"  # runs wait, and the month's money for machines is spent
    DRIFT = "drift"  # what bots predict, or see, wanders from what was judged


class Severity(StrEnum):
    CRITICAL = "critical"  # a pin would send the bots offline, or they lack something already
    WARNING = "warning"  # it would still work as far as anybody knows


class BotState(StrEnum):
    """A bot against what it must run. In this order on the page: what troubles somebody comes first."""

    MIXTURE = "mixture"  # what it says it runs is not what its revision's release holds
    BEHIND = "behind"  # it reports, and has not followed the pointer for too long
    SILENT = "silent"  # it reported lately, and no longer does: nobody knows what it runs
    MOVING = "moving"  # it reports, and the move is too young to expect it there
    CURRENT = "current"  # it reports that it runs what it must
    GONE = "gone"  # stopped on purpose or retired, silent for long, or its token was revoked: nobody waits for it


MAX_REQUIRED_COINS = 500
"""A heartbeat names the bundle of each coin of a release, in at most 64 KiB."""
HEARTBEATS_MISSED = 3
"""A bot is live if it sent a heartbeat within so many heartbeat intervals."""
MAX_MISMATCHES_SHOWN = 4


@dataclass(frozen=True)
class Running:
    """What a release consists of, or what a bot reports to run: release, line, and the bundle digest by coin."""

    release: int | None
    line: str | None
    bundles: Mapping[str, str]


def describe_mismatch(reported: Running, expected: Running) -> str:
    """How a bot's report differs from its revision's release; empty if it runs exactly that."""
    mismatches = []
    if (reported.release, reported.line) != (expected.release, expected.line):
        mismatches.append(f"it names {_name_release(reported)}, the revision is of {_name_release(expected)}")
    for coin in sorted({*reported.bundles, *expected.bundles}):
        actual, wanted = reported.bundles.get(coin), expected.bundles.get(coin)
        if actual is None:
            mismatches.append(f"{coin} is missing")
        elif wanted is None:
            mismatches.append(f"{coin} is not of this release")
        elif actual != wanted:
            mismatches.append(
                f"{coin} is {shorten_digest(actual)}, the release holds {shorten_digest(wanted)}"
            )
    rest = len(mismatches) - MAX_MISMATCHES_SHOWN
    return "; ".join(mismatches[:MAX_MISMATCHES_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")


def _name_release(running: Running) -> str:
    return "no release" if running.release is None else f"release {running.release} ({running.line})"


class Action(StrEnum):
    APPROVE = "approve"
    DECLINE = "decline"
    RESTORE = "restore"
    CANCEL = "cancel"
    REGISTER = "register"  # a standby release as the fallback
    INHERIT = "inherit"  # the release that the bots ran before this service


ACTIONS: Mapping[tuple[str, str], frozenset[Action]] = {
    (Purpose.CANDIDATE, ReleaseState.BUILDING): frozenset({Action.CANCEL}),
    (Purpose.CANDIDATE, ReleaseState.AWAITING_APPROVAL): frozenset({Action.APPROVE, Action.DECLINE}),
    (Purpose.CANDIDATE, ReleaseState.SUPERSEDED): frozenset({Action.RESTORE}),
    (Purpose.CANDIDATE, ReleaseState.ROLLED_BACK): frozenset({Action.RESTORE}),
    (Purpose.FALLBACK, ReleaseState.BUILDING): frozenset({Action.CANCEL}),
    (Purpose.FALLBACK, ReleaseState.STANDBY): frozenset({Action.REGISTER}),
    (Purpose.INHERITED, ReleaseState.BUILDING): frozenset({Action.CANCEL}),
}


def allowed_actions(purpose: str, state: str) -> frozenset[Action]:
    """What may be asked of a release as it stands; who may ask is another question."""
    return ACTIONS.get((purpose, state), frozenset())


@dataclass(frozen=True)
class Outcome:
    """What one coin of a release came to: gate outcomes, or the reason why there are none."""

    coin: str
    results: Sequence[GateOutcome] = ()
    missing: str | None = None

    def failures(self, gates: Iterable[str] | None = None) -> list[str]:
        """What stands against this coin, each with gate, figure and threshold; empty when all passed."""
        if self.missing is not None:
            return [f"{self.coin}: {self.missing}"]
        judged = [r for r in self.results if (r.gate in gates if gates is not None else r.is_required)]
        if not judged:
            return [f"{self.coin}: no required gate has spoken"]
        absent = [g for g in gates or () if g not in {r.gate for r in judged}]
        against = [
            f"{self.coin} {r.gate} {r.verdict}: {r.observed}, required {r.threshold}"
            for r in judged
            if r.is_problem
        ]
        return against + [f"{self.coin} {gate}: not measured" for gate in absent]


@dataclass(frozen=True)
class Settlement:
    """What a release comes to once every required coin has an outcome."""

    state: ReleaseState
    reason: str


def list_failures(outcomes: Sequence[Outcome], gates: Iterable[str] | None = None) -> list[str]:
    """Why a release does not pass, coin by coin; empty when it passes. A release without a required coin fails."""
    if not outcomes:
        return ["no required coin"]
    return [line for outcome in outcomes for line in outcome.failures(gates)]


def settle(purpose: str, outcomes: Sequence[Outcome]) -> Settlement:
    """The state that a building release goes to, and the reason with coin, gate, figure and threshold."""
    failures = list_failures(outcomes, FALLBACK_GATES if purpose == Purpose.FALLBACK else None)
    if failures:
        return Settlement(ReleaseState.REJECTED, "; ".join(failures))
    if purpose == Purpose.FALLBACK:
        return Settlement(ReleaseState.STANDBY, "every coin loads, is finite and answers a single row")
    return Settlement(ReleaseState.AWAITING_APPROVAL, "every gate passed for every coin")


def must_pin(*, pointer_kind: str | None, live_passed: bool) -> bool:
    """Rule 4: after a refusal the bots go to the fallback, unless what they run has itself passed every gate.

    There is nothing to move before the first pointer, nor when they are on the fallback, or offline, already.
    """
    return pointer_kind in (MoveKind.INHERITED, MoveKind.SWAP) and not live_passed
