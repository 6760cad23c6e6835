"""When what bots predict moves the pointer. No ORM, clock or I/O."""

from accounts.rules import Actor
from deploy.rules import MoveKind

LIVE_GATES = Actor("the live gates", is_system=True)
"""Who pins the fallback when the bots' own predictions say so; no person can be named like this."""


def is_majority(breaching: int, live: int) -> bool:
    """More than half of the live bots on the revision. One bot alone is its own majority, one of two is none."""
    return 2 * breaching > live


def must_hold_back(*, kind: str, breaching: int, live: int) -> bool:
    """Whether the bots go to the fallback. On it or offline already there is nowhere to send them (ADR 0012)."""
    return kind in (MoveKind.INHERITED, MoveKind.SWAP) and is_majority(breaching, live)
