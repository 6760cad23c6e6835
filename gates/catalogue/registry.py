"""All gates, by name and by the group they are shown in. A new gate is an entry in its group's file, and nothing here."""

from collections.abc import Mapping
from typing import Any

from gates.catalogue.advisory import ADVISORY
from gates.catalogue.baseline import BASELINE
from gates.catalogue.evidence import EVIDENCE
from gates.catalogue.gate import Gate, Group, Reading
from gates.catalogue.measurement_reader import MeasurementReader, NotMeasured
from gates.catalogue.real_markets import REAL_MARKETS
from gates.catalogue.skill import SKILL

GROUPS = (BASELINE, EVIDENCE, SKILL, REAL_MARKETS, ADVISORY)
LIVE = Group("Live", "checked on the predictions that bots count")
"""Apart from the others: live gates look at no measurement (`gates.catalogue.live`)."""
GATES: Mapping[str, Gate] = {gate.name: gate for group in GROUPS for gate in group.gates}
ADVISORY_NAMES = REAL_MARKETS.names | ADVISORY.names
"""Not required by the full policy."""
BASELINE_NAMES = BASELINE.names


def find_group(gate: str, *, is_required: bool = True) -> Group:
    """Where a page shows a gate: with the advisory ones where the policy does not require it, or no code knows it."""
    if not is_required:
        return ADVISORY
    return next((group for group in GROUPS if gate in group.names), ADVISORY)


def read_gate(name: str, measured: Mapping[str, Any], policy: Mapping[str, Any]) -> Reading | None:
    """A gate's short reading; None where it has none, or a figure is missing, which its sentence says."""
    gate, parameters = GATES.get(name), policy.get("gates", {}).get(name)
    if gate is None or gate.read is None or not isinstance(parameters, Mapping):
        return None
    try:
        return gate.read(MeasurementReader(measured), parameters)
    except (NotMeasured, AttributeError, KeyError, TypeError, ValueError):
        return None
