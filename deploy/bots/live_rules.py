"""When the bots' predictions move the pointer. No ORM, clock or I/O."""

from accounts.roles import Actor
from deploy.rules import MoveKind

LIVE_GATES = Actor("the live gates", is_system=True)
"""The actor of such a pin. No person can have this name."""


def is_majority(breaching: int, voters: int) -> bool:
    """More than half. One alone is a majority, one of two is not."""
    return 2 * breaching > voters


def must_pin_fallback(*, kind: str, breaching: int, voters: int) -> bool:
    """Whether to pin the fallback. There is nothing to pin while the bots are on it or offline (ADR 0012)."""
    return kind in (MoveKind.INHERITED, MoveKind.SWAP) and is_majority(breaching, voters)
