"""What anything that judges may say: a gate of a bundle, a check of candles."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Only *passed* passes.

    *failed*: the thing is bad; *error*: it could not be measured; *inconclusive*: a person must look.
    """

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


WORST_FIRST = (Verdict.ERROR, Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.PASSED)
"""An error outranks a failure: what could not be measured may be worse than what was."""


@dataclass(frozen=True)
class Finding:
    """What one function that judges answers."""

    verdict: Verdict
    figure: float | None
    """The one number that decided: NaN or infinite where that is what was measured, None where nothing was."""
    observed: str
    sentence: str
