"""What differs between two policies, threshold by threshold, and in which direction. No ORM, clock or I/O."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gates.catalogue.gate import Choice, Threshold
from gates.catalogue.live import LIVE_GATES, get_live_thresholds
from gates.catalogue.registry import GATES
from gates.policy import BASELINE_POLICY, FULL_POLICY, Draft, get_entries

Entry = Mapping[str, Any]


class Direction(StrEnum):
    """Which way a change goes: looser lets more bundles pass."""

    LOOSER = "looser"
    STRICTER = "stricter"


@dataclass(frozen=True)
class Difference:
    """One thing that changed; None stands for a gate or threshold that is not there."""

    gate: str
    """`live logit_range` for a live gate."""
    parameter: str
    before: float | str | bool | None
    after: float | str | bool | None
    direction: Direction

    @property
    def sentence(self) -> str:
        what = f"{self.gate}: {self.parameter}".replace("_", " ")
        return f"{what} is {_format(self.after)} instead of {_format(self.before)} ({self.direction})"


def compare_policies(before: Entry, after: Entry) -> list[Difference]:
    """Every change from one policy's document to another's, in the order of the gates."""
    return [*_compare_gates(get_entries(before), get_entries(after)), *_compare_live(before, after)]


def list_weaknesses(policy: Entry, reference: Entry) -> list[str]:
    """Where a policy requires less than `reference` does, one sentence each; empty where it is at least as strict.

    Live gates count only where the reference sets their thresholds.
    """
    changes = list(_compare_gates(get_entries(reference), get_entries(policy)))
    changes += _compare_live(reference, policy) if "live" in reference else ()
    return [change.sentence for change in changes if change.direction == Direction.LOOSER]


def weaker_than_baseline(policy: Entry) -> list[str]:
    """Where a policy requires less than the baseline. Every page and every bot is told."""
    return list_weaknesses(policy, BASELINE_POLICY)


def weaker_than_full(policy: Entry) -> list[str]:
    return list_weaknesses(policy, FULL_POLICY)


def explain_draft(draft: Draft) -> list[tuple[Difference, str]]:
    """Every difference of a draft from the full policy with its reason, in the order of the gates."""
    changes = compare_policies(FULL_POLICY, draft.document)
    return [(change, draft.reasons[f"{change.gate}.{change.parameter}"]) for change in changes]


def _compare_gates(before: Entry, after: Entry) -> Iterator[Difference]:
    for name in [*GATES, *sorted((set(before) | set(after)) - set(GATES))]:
        old, new = before.get(name), after.get(name)
        roles = _get_role(old), _get_role(new)
        if roles[0] != roles[1]:
            is_looser = new is None or (old is not None and not new.get("required"))
            yield Difference(name, "gate", *roles, _get_direction(is_looser))
        if name in GATES and old is not None and new is not None:
            yield from _compare_thresholds(name, GATES[name].parameters, old, new)


def _compare_live(before: Entry, after: Entry) -> Iterator[Difference]:
    old, new = get_live_thresholds(before), get_live_thresholds(after)
    for name, gate in LIVE_GATES.items():
        if gate.parameters:
            yield from _compare_thresholds(f"live {name}", gate.parameters, old[name], new[name])


def _compare_thresholds(
    name: str, parameters: Iterable[Threshold | Choice], before: Entry, after: Entry
) -> Iterator[Difference]:
    for parameter in parameters:
        old, new = before.get(parameter.name), after.get(parameter.name)
        if old != new:
            is_looser = new is None or (old is not None and parameter.is_looser(new, than=old))
            yield Difference(name, parameter.name, old, new, _get_direction(is_looser))


def _get_role(entry: Entry | None) -> str | None:
    if entry is None:
        return None
    return "required" if entry.get("required") else "advisory"


def _get_direction(is_looser: bool) -> Direction:
    return Direction.LOOSER if is_looser else Direction.STRICTER


def _format(value: float | str | bool | None) -> str:
    if value is None:
        return "not in the policy"
    return f"{value:g}" if isinstance(value, int | float) else value.replace("_", " ")
