"""Checks that must all hold, as one finding."""

from gates.catalogue.figures import Figures
from mlcore.verdict import Finding, Verdict


def all_true(figures: Figures, section: str, checks: dict[str, str]) -> Finding:
    """Passed when every check holds and nothing went wrong. One that does not hold fails, whatever is not known besides."""
    broken = [says for name, says in checks.items() if figures.says_no(section, name)]
    if broken:
        why = figures.problem(section)
        sentence = f"{figures.coin}'s {section} is not sound. Not so: {', '.join(broken)}" + (
            f" ({why})." if why else "."
        )
        return Finding(Verdict.FAILED, float(len(broken)), f"not so: {', '.join(broken)}", sentence)
    for name in checks:
        figures.flag(section, name)
    figures.require_sound(section)
    says = ", ".join(checks.values())
    return Finding(Verdict.PASSED, 0.0, says, f"{figures.coin}'s {section} is sound: {says}.")
