"""The result of a judgement: of a gate about a bundle, or of a check about candles."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Only *passed* passes.

    *failed*: it is bad. *error*: it could not be measured. *inconclusive*: a person must look.
    """

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"

    @property
    def sign(self) -> str:
        """As text and pages show it in one character."""
        return SIGNS[self]


SIGNS = {Verdict.PASSED: "✓", Verdict.FAILED: "✗", Verdict.INCONCLUSIVE: "?", Verdict.ERROR: "!"}


WORST_FIRST = (Verdict.ERROR, Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.PASSED)
"""An error outranks a failure: what could not be measured may be worse than what was measured."""


@dataclass(frozen=True)
class Finding:
    """What one gate or check returns."""

    verdict: Verdict
    figure: float | None
    """The number that decided: NaN or infinite if that was measured, None if nothing was."""
    observed: str
    sentence: str
