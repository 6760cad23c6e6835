"""What a policy may say, and the two policies that come with the code. No ORM, clock or I/O."""

from collections.abc import Iterator, Mapping
from typing import Any

from common.errors import InvalidInput
from gates.catalogue.baseline import BASELINE
from gates.catalogue.gate import Gate
from gates.catalogue.live import DEFAULT_LIVE, find_live_problems
from gates.catalogue.registry import ADVISORY_NAMES, BASELINE_NAMES, GATES

FORMAT = 1

BASELINE_POLICY: Mapping[str, Any] = {
    "format": FORMAT,
    "gates": {gate.name: {"required": True, **gate.defaults} for gate in BASELINE.gates},
}
"""What every policy must require, at the default thresholds."""
FULL_POLICY: Mapping[str, Any] = {
    "format": FORMAT,
    "gates": {
        gate.name: {"required": gate.name not in ADVISORY_NAMES, **gate.defaults} for gate in GATES.values()
    },
    "live": DEFAULT_LIVE,
}
"""Every gate there is, at the default thresholds. A gate or threshold that is added to the catalogue changes it."""


def check_policy(document: object) -> dict[str, Any]:
    """The document of a sound policy, without anything else. Raises InvalidInput with all its problems."""
    if not isinstance(document, Mapping) or document.get("format", FORMAT) != FORMAT:
        raise InvalidInput(f"A policy is a document of format {FORMAT} with its gates.", field="document")
    if unknown := sorted(str(key) for key in set(document) - {"format", "gates", "live"}):
        raise InvalidInput(f"A policy has no field {', '.join(unknown)}.", field="document")
    problems = list(_find_problems(document.get("gates")))
    problems += find_live_problems(document["live"]) if "live" in document else []
    if problems:
        raise InvalidInput("This policy is not valid: " + "; ".join(problems) + ".", field="document")
    parts = [part for part in ("gates", "live") if part in document]
    return {
        "format": FORMAT,
        **{part: {name: dict(entry) for name, entry in document[part].items()} for part in parts},
    }


def get_entries(policy: object) -> Mapping[str, Any]:
    """A policy's gates; empty for what is no policy."""
    entries = policy.get("gates") if isinstance(policy, Mapping) else None
    return entries if isinstance(entries, Mapping) else {}


def find_entry_problems(gate: Gate, entry: object) -> Iterator[str]:
    """Everything that is wrong with a policy's entry for one gate."""
    if not isinstance(entry, Mapping):
        yield f"{gate.name} must be a document"
        return
    if not isinstance(entry.get("required"), bool):
        yield f"{gate.name} must say whether it is required (true or false)"
    elif gate.name in BASELINE_NAMES and not entry["required"]:
        yield f"{gate.name} is a baseline gate and must be required"
    thresholds = {name: value for name, value in entry.items() if name != "required"}
    yield from (f"{gate.name}: {problem}" for problem in gate.find_problems(thresholds))


def _find_problems(entries: object) -> Iterator[str]:
    if not isinstance(entries, Mapping) or not entries:
        yield "it names no gate"
        return
    for name in sorted(map(str, set(entries) - set(GATES))):
        yield f"there is no gate {name!r} (known: {', '.join(GATES)})"
    for gate in GATES.values():
        if gate.name in entries:
            yield from find_entry_problems(gate, entries[gate.name])
        elif gate.name in BASELINE_NAMES:
            yield f"{gate.name} is a baseline gate and must be in every policy"
