"""What a gate may say."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Only *passed* passes. *failed*: the thing is bad; *error*: it could not be measured; *inconclusive*: a person must look."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


@dataclass(frozen=True)
class GateOutcome:
    """One gate's word on one bundle, with the figures it stands on."""

    gate: str
    is_required: bool
    verdict: Verdict
    figure: float | None
    observed: str
    threshold: str
    sentence: str
