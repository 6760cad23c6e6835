"""What a gate is, and what it may say. No ORM, clock or I/O."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gates.catalogue.figures import Figures
from mlcore.verdict import Finding, Verdict


@dataclass(frozen=True)
class GateOutcome:
    """One gate's word on one bundle, with the figures it stands on."""

    gate: str
    is_required: bool
    verdict: Verdict
    figure: float | None
    """The one number that decided: NaN or infinite where that is what was measured, None where nothing was."""
    observed: str
    threshold: str
    sentence: str


@dataclass(frozen=True)
class Threshold:
    """A number that a policy sets: the baseline's value, what is a sane one, and which way is looser."""

    name: str
    seed: float
    least: float
    greatest: float
    is_looser_when: str
    """"higher" or "lower" than the baseline's."""
    is_whole: bool = False

    def problem(self, value: object) -> str | None:
        """Why this is no such threshold, or None."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{self.name} must be a number, not {value!r}"
        if not self.least <= value <= self.greatest:
            return f"{self.name} must lie between {self.least:g} and {self.greatest:g}, not at {value!r}"
        if self.is_whole and value != int(value):
            return f"{self.name} must be a whole number, not {value!r}"
        return None

    def is_looser(self, value: Any) -> bool:
        return bool(value > self.seed if self.is_looser_when == "higher" else value < self.seed)


@dataclass(frozen=True)
class Choice:
    """A word that a policy sets; any other than the baseline's is looser."""

    name: str
    seed: str
    words: tuple[str, ...]

    def problem(self, value: object) -> str | None:
        """Why this is no such word, or None."""
        if value not in self.words:
            return f"{self.name} must be one of {', '.join(self.words)}, not {value!r}"
        return None

    def is_looser(self, value: Any) -> bool:
        return bool(value != self.seed)


Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Gate:
    """One gate: a pure function over measurements, and the thresholds a policy sets for it.

    `judge` may raise NotMeasured for any figure it needs and does not find; that is an *error*, never a pass.
    """

    name: str
    judge: Callable[[Figures, Parameters], Finding]
    says: Callable[[Parameters], str]
    """The threshold as a person reads it, at most 200 characters."""
    parameters: tuple[Threshold | Choice, ...] = ()

    @property
    def baseline_parameters(self) -> dict[str, float | str]:
        return {parameter.name: parameter.seed for parameter in self.parameters}
