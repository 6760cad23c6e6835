"""From a measurement and a policy to outcomes and a verdict. No ORM, clock or I/O."""

from collections.abc import Iterable, Mapping
from typing import Any

from gates.catalogue.gate import GateOutcome
from gates.catalogue.measurement_reader import MeasurementReader, NotMeasured
from gates.catalogue.registry import BASELINE_NAMES, GATES
from gates.policy import FORMAT, find_entry_problems, get_entries
from mlcore.verdict import WORST_FIRST, Finding, Verdict

OBSERVED_LENGTH = 200
"""The length of the column; a figure with absurdly many digits is cut."""


def evaluate(
    measurement: Mapping[str, Any], policy: Mapping[str, Any], *, coin: str = "", failure: str = ""
) -> list[GateOutcome]:
    """The outcome of every gate of the policy, and of the baseline whether the policy names it or not.

    An advisory gate with nothing to judge is left out.

    Sentences name `coin`; the measurement may not know it. `failure` is why the bundle could not be measured: then every
    gate is an *error* with that reason.
    """
    entries, reader = get_entries(policy), MeasurementReader(measurement, coin)
    names = [*GATES, *sorted(set(entries) - set(GATES))]
    return [
        _judge(name, entries.get(name), reader, failure)
        for name in names
        if (name in entries or name in BASELINE_NAMES) and not _is_left_out(name, entries.get(name), reader)
    ]


def get_overall_verdict(outcomes: Iterable[GateOutcome]) -> Verdict:
    """The worst verdict of the required gates: error, failed, inconclusive, passed. An error where none is required."""
    verdicts = {outcome.verdict for outcome in outcomes if outcome.is_required}
    return next((verdict for verdict in WORST_FIRST if verdict in verdicts), Verdict.ERROR)


def _is_left_out(name: str, entry: object, measurement: MeasurementReader) -> bool:
    gate = GATES.get(name)
    is_advisory = isinstance(entry, Mapping) and entry.get("required") is False
    return bool(gate and gate.applies and is_advisory and not gate.applies(measurement))


def _judge(name: str, entry: object, measurement: MeasurementReader, failure: str) -> GateOutcome:
    is_optional = isinstance(entry, Mapping) and entry.get("required") is False
    finding, threshold = _find(name, entry, measurement, failure)
    return GateOutcome(
        **{**vars(finding), "observed": finding.observed[:OBSERVED_LENGTH]},
        gate=name,
        is_required=name in BASELINE_NAMES or not is_optional,
        threshold=threshold,
    )


def _find(name: str, entry: object, measurement: MeasurementReader, failure: str) -> tuple[Finding, str]:
    """The gate's finding, and its threshold in words."""
    gate = GATES.get(name)
    if gate is None:
        return _error(f"The policy names a gate {name[:32]!r}, which this version does not have."), "unknown"
    if not isinstance(entry, Mapping):
        return _error(f"The policy sets no thresholds for {name}."), "not set"
    if problems := list(find_entry_problems(gate, entry)):
        return _error(f"The policy cannot be used: {'; '.join(problems)}."), "not usable"
    threshold = gate.describe(entry)
    if failure:
        sentence = f"{measurement.coin} could not be measured: {failure}"
        return _error(sentence, f"not measured: {failure}"), threshold
    try:
        if measurement.document.get("format") != FORMAT:
            raise NotMeasured(f"the measurement is not of format {FORMAT}")
        return gate.judge(measurement, entry), threshold
    except NotMeasured as missing:
        sentence = f"{measurement.coin} cannot be judged by {name}: {missing.message}."
        return _error(sentence, missing.brief, missing.figure), threshold


def _error(sentence: str, observed: str = "not measured", figure: float | None = None) -> Finding:
    """`observed` gives the reason in place of a figure: tables and a release's reason show only that."""
    return Finding(Verdict.ERROR, figure, observed, sentence)
