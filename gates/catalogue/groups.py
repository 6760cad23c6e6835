"""Gates in the groups in which a page shows them, so that twenty read as four."""

from collections.abc import Iterable
from dataclasses import dataclass

from gates.catalogue.advisory import ADVISORY_GATES
from gates.catalogue.baseline import BASELINE_GATES
from gates.catalogue.evidence import EVIDENCE_GATES
from gates.catalogue.gate import Gate
from gates.catalogue.live import LIVE_GATES
from gates.catalogue.skill import SKILL_GATES


@dataclass(frozen=True)
class Group:
    """Gates that ask alike; `asks` is what they ask, in one breath."""

    title: str
    asks: str
    gates: frozenset[str]


def _names(gates: Iterable[Gate]) -> frozenset[str]:
    return frozenset(gate.name for gate in gates)


PLAN = Group("The plan", "files whole, figures finite, one row answered as a batch", _names(BASELINE_GATES))
EVIDENCE = Group(
    "Evidence", "sound candles, none of them seen in training, figures as reported", _names(EVIDENCE_GATES)
)
SKILL = Group(
    "Skill, not luck", "neither too good to be true nor the luckiest of many tries", _names(SKILL_GATES)
)
ADVICE = Group("Advice", "tells, and decides nothing", _names(ADVISORY_GATES))
GROUPS = (PLAN, EVIDENCE, SKILL, ADVICE)
LIVE = Group("Live", "on what bots count of their own predictions", frozenset(LIVE_GATES))
"""Apart from the others: these look at no measurement."""


def group_of(gate: str, *, is_required: bool = True) -> Group:
    """Where a page shows it: among the advice where the policy only asks for advice, or nobody knows the gate."""
    if not is_required:
        return ADVICE
    return next((group for group in GROUPS if gate in group.gates), ADVICE)
