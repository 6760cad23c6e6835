"""Checks that must all hold, as one finding."""

from gates.catalogue.measurement_reader import MeasurementReader
from mlcore.verdict import Finding, Verdict


def judge_checklist(measurement: MeasurementReader, section: str, checks: dict[str, str]) -> Finding:
    """Passed when every check holds and nothing went wrong. A check that does not hold fails, whatever else is unknown."""
    broken = [text for name, text in checks.items() if measurement.is_false(section, name)]
    if broken:
        problem = measurement.problem(section)
        sentence = f"{measurement.coin}'s {section} fails these checks: {', '.join(broken)}" + (
            f" ({problem})." if problem else "."
        )
        return Finding(Verdict.FAILED, float(len(broken)), f"fails: {', '.join(broken)}", sentence)
    for name in checks:
        measurement.flag(section, name)
    measurement.require_no_problem(section)
    texts = ", ".join(checks.values())
    return Finding(Verdict.PASSED, 0.0, texts, f"{measurement.coin}'s {section} passes every check: {texts}.")
