"""What a gate is, and the thresholds, outcome and short reading it has. No ORM, clock or I/O."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gates.catalogue.measurement_reader import MeasurementReader
from mlcore.verdict import Finding, Verdict

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class GateOutcome(Finding):
    """One gate's finding about one bundle, under one policy. `GateResult` is its row in the database."""

    gate: str
    is_required: bool
    threshold: str

    @property
    def is_problem(self) -> bool:
        return self.verdict != Verdict.PASSED


@dataclass(frozen=True)
class Threshold:
    """A number that a policy sets: its default, its bounds, and which direction is looser."""

    name: str
    default: float
    minimum: float
    maximum: float
    is_looser_when: str
    """ "higher" or "lower"."""
    help: str

    @property
    def is_whole(self) -> bool:
        """Whether it counts something, as its default does."""
        return isinstance(self.default, int)

    def find_problem(self, value: object) -> str | None:
        """Why this value cannot be used, or None."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{self.name} must be a number, not {value!r}"
        if not self.minimum <= value <= self.maximum:
            return f"{self.name} must lie between {self.minimum:g} and {self.maximum:g}, not at {value!r}"
        if self.is_whole and value != int(value):
            return f"{self.name} must be a whole number, not {value!r}"
        return None

    def is_looser(self, value: Any, than: Any) -> bool:
        return bool(value > than if self.is_looser_when == "higher" else value < than)


@dataclass(frozen=True)
class Choice:
    """A word that a policy sets. Any word other than the default is looser."""

    name: str
    default: str
    words: tuple[str, ...]
    help: str

    def find_problem(self, value: object) -> str | None:
        """Why this value cannot be used, or None."""
        if value not in self.words:
            return f"{self.name} must be one of {', '.join(self.words)}, not {value!r}"
        return None

    def is_looser(self, value: Any, than: Any) -> bool:
        return bool(value != self.default)


Range = tuple[float, float]


@dataclass(frozen=True)
class Meter:
    """A scale of 0…100: the allowed band, the measured marks, and the interval or spread around them."""

    band: Range
    marks: tuple[float, ...]
    span: Range | None = None

    @property
    def band_width(self) -> float:
        return self.band[1] - self.band[0]

    @property
    def span_width(self) -> float:
        return self.span[1] - self.span[0] if self.span else 0.0


@dataclass(frozen=True)
class Reading:
    """A gate's figures where there is room for a few characters only."""

    brief: str
    detail: str = ""
    meter: Meter | None = None


def scale(value: float, bottom: float, top: float) -> float:
    """Where a value lies on a scale of 0…100 from `bottom` to `top`; at the end where it lies beyond."""
    return max(0.0, min(100.0, 100 * (value - bottom) / (top - bottom)))


@dataclass(frozen=True)
class AnyGate:
    """What a gate on measurements and a live gate have in common."""

    name: str
    judge: Callable[..., Finding]
    describe: Callable[[Parameters], str]
    """The threshold as a person reads it, at most 200 characters."""
    parameters: tuple[Threshold | Choice, ...] = ()

    @property
    def about(self) -> str:
        """What the gate checks: the first line of the judge's docstring."""
        return (self.judge.__doc__ or "").partition("\n")[0]

    @property
    def defaults(self) -> dict[str, Any]:
        return {parameter.name: parameter.default for parameter in self.parameters}

    def find_problems(self, entry: Mapping[str, Any]) -> Iterator[str]:
        """Every threshold in a policy's entry that is unknown, missing or out of bounds."""
        known = {parameter.name for parameter in self.parameters}
        for unknown in sorted(map(str, set(entry) - known)):
            yield f"has no {unknown!r}"
        for parameter in self.parameters:
            if parameter.name not in entry:
                yield f"{parameter.name} is missing"
            elif problem := parameter.find_problem(entry[parameter.name]):
                yield problem


@dataclass(frozen=True)
class Gate(AnyGate):
    """One gate: a pure function over a measurement, its thresholds, and its short reading.

    `judge` may raise NotMeasured for any figure that it needs and does not find. That is an *error*, never a pass.
    """

    judge: Callable[[MeasurementReader, Parameters], Finding]
    read: Callable[[MeasurementReader, Parameters], Reading] | None = None
    """The figure and meter a page shows beside the verdict; None where the verdict says it all."""
    applies: Callable[[MeasurementReader], bool] | None = None
    """Whether there is anything to judge. Where there is not, the gate is left out, unless the policy requires it."""


Judge = Callable[[MeasurementReader, Parameters], Finding]


@dataclass(frozen=True, eq=False)
class Group:
    """Gates that a page shows under one title. Whether they are in the baseline, or decide, is a property of the group."""

    title: str
    subtitle: str
    is_baseline: bool = False
    """Required by every policy, and part of the first one."""
    is_advisory: bool = False
    """Not required by the full policy: the result is shown and decides nothing."""
    gates: list[Gate] = field(default_factory=list)

    def register(
        self,
        name: str,
        describe: Callable[[Parameters], str],
        *parameters: Threshold | Choice,
        read: Callable[[MeasurementReader, Parameters], Reading] | None = None,
        applies: Callable[[MeasurementReader], bool] | None = None,
    ) -> Callable[[Judge], Judge]:
        """Make the decorated judge a gate of this group, with its threshold in words, thresholds and short reading."""

        def add(judge: Judge) -> Judge:
            self.gates.append(Gate(name, judge, describe, parameters, read, applies))
            return judge

        return add

    @property
    def names(self) -> frozenset[str]:
        return frozenset(gate.name for gate in self.gates)
