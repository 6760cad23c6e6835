"""From measurements and a policy to verdicts; and what a policy may say. No ORM, clock or I/O."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from common.errors import InvalidInput
from gates.catalogue.advisory import ADVISORY_GATES
from gates.catalogue.baseline import BASELINE_GATES
from gates.catalogue.evidence import EVIDENCE_GATES
from gates.catalogue.figures import Figures, NotMeasured
from gates.catalogue.gate import Choice, Gate, GateOutcome, Threshold
from gates.catalogue.live import DEFAULT_LIVE, LIVE_GATES, live_part, live_problems
from gates.catalogue.skill import SKILL_GATES
from mlcore.verdict import WORST_FIRST, Finding, Verdict

__all__ = [
    "BASELINE_POLICY",
    "FULL_POLICY",
    "GATES",
    "GateOutcome",
    "Verdict",
    "checked_policy",
    "eased",
    "evaluate",
    "loosened",
    "overall",
]

FORMAT = 1
OBSERVED_LENGTH = 200
"""An absurd figure is long; its column is not."""
GATES: Mapping[str, Gate] = {
    gate.name: gate for gate in (*BASELINE_GATES, *EVIDENCE_GATES, *SKILL_GATES, *ADVISORY_GATES)
}
BASELINE_NAMES = frozenset(gate.name for gate in BASELINE_GATES)
ADVISORY_NAMES = frozenset(gate.name for gate in ADVISORY_GATES)

BASELINE_POLICY: Mapping[str, Any] = {
    "format": FORMAT,
    "gates": {gate.name: {"required": True, **gate.baseline_parameters} for gate in BASELINE_GATES},
}
FULL_POLICY: Mapping[str, Any] = {
    "format": FORMAT,
    "gates": {
        gate.name: {"required": gate.name not in ADVISORY_NAMES, **gate.baseline_parameters}
        for gate in GATES.values()
    },
    "live": DEFAULT_LIVE,
}
"""Every gate there is, at the thresholds of its own code."""


def evaluate(
    measurements: Mapping[str, Any], policy: Mapping[str, Any], *, coin: str = "", failure: str = ""
) -> list[GateOutcome]:
    """Every gate's word: those of the policy, and the baseline's whether the policy names them or not.

    `coin` is whom the sentences are about, where the measurement may not know. `failure` is why the bundle could not
    be measured at all; then every gate is an *error* that says so.
    """
    entries, figures = _entries(policy), Figures(measurements, coin)
    names = [*GATES, *sorted(set(entries) - set(GATES))]
    return [
        _outcome(name, entries.get(name), figures, failure)
        for name in names
        if name in entries or name in BASELINE_NAMES
    ]


def overall(outcomes: Iterable[GateOutcome]) -> Verdict:
    """The worst word of the required gates: error, then failed, then inconclusive. None required: an error."""
    spoken = {outcome.verdict for outcome in outcomes if outcome.is_required}
    return next((verdict for verdict in WORST_FIRST if verdict in spoken), Verdict.ERROR)


def checked_policy(document: object) -> dict[str, Any]:
    """The document of a sound policy, reduced to what counts. Raises InvalidInput with all that is wrong in it."""
    if not isinstance(document, Mapping) or document.get("format", FORMAT) != FORMAT:
        raise InvalidInput(f"A policy is a document of format {FORMAT} with its gates.", field="document")
    if unknown := sorted(str(key) for key in set(document) - {"format", "gates", "live"}):
        raise InvalidInput(f"A policy has no field {', '.join(unknown)}.", field="document")
    problems = list(_problems(document.get("gates")))
    problems += live_problems(document["live"]) if "live" in document else []
    if problems:
        raise InvalidInput("This is no policy: " + "; ".join(problems) + ".", field="document")
    return {
        "format": FORMAT,
        **{
            part: {name: dict(entry) for name, entry in document[part].items()}
            for part in ("gates", "live")
            if part in document
        },
    }


def loosened(document: Mapping[str, Any]) -> list[str]:
    """Where a policy asks less than the baseline, one sentence each; empty when nowhere. Shown on every page."""
    entries = _entries(document)
    return [
        sentence
        for gate in BASELINE_GATES
        for sentence in _looser(gate, entries.get(gate.name), "the baseline", is_required=True)
    ]


def eased(document: Mapping[str, Any]) -> list[str]:
    """Where a policy asks less than the full policy of the gates beyond the baseline, one sentence each."""
    entries = _entries(document)
    live = live_part(document)
    return [
        sentence
        for gate in GATES.values()
        if gate.name not in BASELINE_NAMES
        for sentence in _looser(
            gate, entries.get(gate.name), "the full policy", is_required=gate.name not in ADVISORY_NAMES
        )
    ] + [
        sentence
        for name, entry in live.items()
        for sentence in _looser_thresholds(
            f"live {name}", LIVE_GATES[name].parameters, entry, "the full policy"
        )
    ]


def _looser(gate: Gate, entry: object, asks: str, *, is_required: bool) -> Iterator[str]:
    if is_required and (not isinstance(entry, Mapping) or entry.get("required") is not True):
        yield f"{gate.name} is not required; {asks} requires it."
        return
    if not isinstance(entry, Mapping):
        yield f"{gate.name} is left out; {asks} takes it as advice."
        return
    yield from _looser_thresholds(gate.name, gate.parameters, entry, asks)


def _looser_thresholds(
    name: str, parameters: Iterable[Threshold | Choice], entry: Mapping[str, Any], asks: str
) -> Iterator[str]:
    for parameter in parameters:
        value = entry.get(parameter.name)
        if parameter.problem(value) is None and parameter.is_looser(value):
            yield (
                f"{name}: {parameter.name.replace('_', ' ')} is {_plain(value)}; "
                f"{asks} says {_plain(parameter.seed)}."
            )


def _outcome(name: str, entry: object, figures: Figures, failure: str) -> GateOutcome:
    gate = GATES.get(name)
    is_required = (
        name in BASELINE_NAMES or not isinstance(entry, Mapping) or entry.get("required") is not False
    )
    finding, threshold = _finding(gate, name, entry, figures, failure)
    observed = finding.observed[:OBSERVED_LENGTH]
    return GateOutcome(
        name, is_required, finding.verdict, finding.figure, observed, threshold, finding.sentence
    )


def _finding(
    gate: Gate | None, name: str, entry: object, figures: Figures, failure: str
) -> tuple[Finding, str]:
    if gate is None:
        return _error(f"The policy asks for a gate {name[:32]!r}, which this code does not know."), "unknown"
    if not isinstance(entry, Mapping):
        return _error(f"The policy does not say what {name} requires."), "not set"
    if unusable := list(_entry_problems(gate, entry)):
        return _error(f"The policy cannot be judged by: {'; '.join(unusable)}."), "not usable"
    threshold = gate.says(entry)
    if failure:
        return _error(
            f"{figures.coin} could not be measured: {failure}", f"not measured: {failure}"
        ), threshold
    try:
        if figures.document.get("format") != FORMAT:
            raise NotMeasured(f"the measurement is not of format {FORMAT}")
        return gate.judge(figures, entry), threshold
    except NotMeasured as missing:
        sentence = f"{figures.coin} cannot be judged by {name}: {missing.message}."
        return _error(sentence, missing.brief, missing.figure), threshold


def _error(sentence: str, observed: str = "not measured", figure: float | None = None) -> Finding:
    """What stands where a figure would says why there is none: a table, and a release's reason, show no more of it."""
    return Finding(Verdict.ERROR, figure, observed, sentence)


def _entries(policy: object) -> Mapping[str, Any]:
    entries = policy.get("gates") if isinstance(policy, Mapping) else None
    return entries if isinstance(entries, Mapping) else {}


def _problems(entries: object) -> Iterator[str]:
    """Everything that is wrong with a policy's gates."""
    if not isinstance(entries, Mapping) or not entries:
        yield "it names no gate"
        return
    for name in sorted(map(str, set(entries) - set(GATES))):
        yield f"there is no gate {name!r} (known: {', '.join(GATES)})"
    for gate in GATES.values():
        if gate.name in entries:
            yield from _entry_problems(gate, entries[gate.name])
        elif gate.name in BASELINE_NAMES:
            yield f"{gate.name} is a baseline gate and must be in every policy"


def _entry_problems(gate: Gate, entry: object) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        yield f"{gate.name} must be a document"
        return
    if not isinstance(entry.get("required"), bool):
        yield f"{gate.name} must say whether it is required (true or false)"
    elif gate.name in BASELINE_NAMES and not entry["required"]:
        yield f"{gate.name} is a baseline gate and must be required"
    for unknown in sorted(map(str, set(entry) - {"required"} - {p.name for p in gate.parameters})):
        yield f"{gate.name} has no {unknown!r}"
    for parameter in gate.parameters:
        if problem := _parameter_problem(parameter, entry):
            yield f"{gate.name}: {problem}"


def _parameter_problem(parameter: Threshold | Choice, entry: Mapping[str, Any]) -> str | None:
    if parameter.name not in entry:
        return f"{parameter.name} is missing"
    return parameter.problem(entry[parameter.name])


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value).replace("_", " ")
