"""What a policy may say; the two policies and the drafts that come with the code. No ORM, clock or I/O."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from common.errors import InvalidInput, NotFound
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


@dataclass(frozen=True)
class Draft:
    """A policy that comes with the code and decides nothing: one approver proposes it, and another adopts it."""

    name: str
    """As API and command call it."""
    title: str
    about: str
    document: Mapping[str, Any]
    reasons: Mapping[str, str]
    """Why it differs from the full policy, by gate and threshold as in `accuracy.above`."""


def _change_full_policy(**gates: Mapping[str, Any]) -> Mapping[str, Any]:
    document = deepcopy(dict(FULL_POLICY))
    for name, changes in gates.items():
        document["gates"][name].update(changes)
    return document


_IN_PLACE = "The gate lead decides in its place, by an interval that is widened for every attempt."
_BY_LABEL = "The gate label balance decides in its place, by how often each class occurs."
_REAL_MARKETS = Draft(
    "real-markets",
    "A policy for real markets",
    "An honest model of a real market is right in a few points more of the bars than the label's base rate, and never in "
    "65 %. This policy asks for that lead, by its lower bound, and changes no gate that guards honesty.",
    _change_full_policy(
        accuracy={"above": 0.33},
        class_balance={"least": 0.0, "most": 1.0},
        attempts={"above": 0.33},
        lead={"required": True},
        label_balance={"required": True},
    ),
    {
        "accuracy.above": "No honest model of a real market reaches 65 %: a third is what a guess among three classes "
        f"reaches. {_IN_PLACE}",
        "class_balance.least": "A class of a fixed percentage or of barriers may occur in 5 % of the bars, and an honest "
        f"model predicts it as rarely. {_BY_LABEL}",
        "class_balance.most": "The most frequent class of such a label occurs in far more than 40 % of the bars. "
        f"{_BY_LABEL}",
        "attempts.above": "It asks the accuracy's limit of later attempts, so it has the accuracy's limit. "
        f"{_IN_PLACE}",
        "lead.gate": "The accuracy must exceed the label's base rate, every naive forecaster and the model's own calls in "
        "one direction by more than chance explains: without it, nothing would ask for skill that lasts.",
        "label_balance.gate": "A model that hardly ever predicts one class is refused, as class balance does, whatever "
        "the label's shares are.",
    },
)
DRAFTS: Mapping[str, Draft] = {_REAL_MARKETS.name: _REAL_MARKETS}


def find_draft(name: str) -> Draft:
    """Raises NotFound."""
    draft = DRAFTS.get(name)
    if draft is None:
        raise NotFound(f"There is no draft of a policy {name[:40]!r} (known: {', '.join(DRAFTS)}).")
    return draft


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
