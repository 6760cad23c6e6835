"""Holding the bots on the fallback, or on nothing when not even that is fit."""

from dataclasses import dataclass

from audit.errors import Conflict, Unavailable
from deploy import outcomes, pointer
from deploy.models import PointerMove, Release
from deploy.rules import FALLBACK_GATES, MoveKind, ReleaseState
from gates import services as gates


@dataclass(frozen=True)
class Fitness:
    """Whether the registered fallback can be served right now, and if not, why."""

    release: Release | None
    problem: str | None = None
    unchecked: str | None = None
    """Why its bytes could not be looked at. It is pinned all the same: bots verify every file themselves (ADR 0009)."""

    @property
    def is_ready(self) -> bool:
        return self.release is not None and self.problem is None


def fallback_fitness() -> Fitness:
    """Look at the registered fallback: registered, loads, finite, answers a single row, bytes unchanged.

    It hashes files, so it is called before a deciding transaction, never inside.
    """
    release = pointer.fallback()
    if release is None:
        return Fitness(None, "no fallback is registered")
    places = outcomes.places_of(release)
    by_coin = {place.coin_id: place for place in places}
    against: list[str] = []
    for coin in outcomes.required_coins():
        place = by_coin.get(coin.pk)
        outcome = outcomes.outcome_of(place) if place else None
        against += outcome.failures(FALLBACK_GATES) if outcome else [f"{coin}: not diagnosed"]
    try:
        against += outcomes.damaged_files(places)
    except Unavailable as away:
        return Fitness(release, "; ".join(against) or None, unchecked=away.message)
    return Fitness(release, "; ".join(against) or None)


def pin_in_transaction(reason: str, *, actor: object, fitness: Fitness) -> PointerMove:
    """Move the pointer to the fallback, or offline when it is not fit (rule 7). The caller holds the audit head."""
    now = pointer.current()
    if now is None:
        raise Conflict("There is no pointer yet: inherit what the bot runs today first.")
    registered = pointer.fallback()
    if fitness.is_ready and registered != fitness.release:
        raise Conflict("The fallback was replaced at this moment. Look at it and ask again.")
    to = fitness.release if fitness.is_ready else None
    kind = MoveKind.PIN if to else MoveKind.OFFLINE
    if (now.kind, now.release_id) == (kind, to.pk if to else None):
        raise Conflict(f"The bots are on {to.line if to else 'nothing'} already (epoch {now.epoch}).")
    if to is None:
        reason = f"{reason} — and the fallback is not fit: {fitness.problem}"
    elif fitness.unchecked:
        reason = f"{reason} — the fallback's bytes were not checked: {fitness.unchecked}"
    pointer.retire(now.release, ReleaseState.ROLLED_BACK, actor=actor, reason=reason)
    return pointer.move(kind, to, policy=gates.policy_in_force(), actor=actor, reason=reason)
