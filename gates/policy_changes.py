"""What one policy says otherwise than another, threshold by threshold, and which way that goes. No ORM, clock or I/O."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gates.catalogue.gate import Choice, Threshold
from gates.catalogue.live import LIVE_GATES, live_part
from gates.policy import GATES

REQUIRED = "required"


class Direction(StrEnum):
    """Which way a change goes: looser lets more pass."""

    LOOSER = "looser"
    STRICTER = "stricter"


@dataclass(frozen=True)
class Difference:
    """One thing that changed; None stands for a gate or threshold that is not there."""

    gate: str
    parameter: str
    before: float | str | bool | None
    after: float | str | bool | None
    direction: Direction

    @property
    def sentence(self) -> str:
        what = f"{self.gate.replace('_', ' ')}: {self.parameter.replace('_', ' ')}"
        return f"{what} from {_said(self.before)} to {_said(self.after)}, {self.direction}"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Every change from one policy's document to another's, in the order of the gates."""
    olds, news = before["gates"], after["gates"]
    names = [*GATES, *sorted((set(olds) | set(news)) - set(GATES))]
    of_gates = [change for name in names for change in _of_gate(name, olds.get(name), news.get(name))]
    return of_gates + list(_of_live(live_part(before), live_part(after)))


def _of_live(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    for name, gate in LIVE_GATES.items():
        yield from _of_thresholds(f"live {name}", gate.parameters, before.get(name, {}), after.get(name, {}))


def _of_gate(
    name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> Iterator[Difference]:
    if before is None and after is None:
        return
    if before is None or after is None:
        word = {name: _standing(entry) for name, entry in (("before", before), ("after", after))}
        yield Difference(name, "gate", word["before"], word["after"], _direction(is_looser=after is None))
        return
    if before.get(REQUIRED) != after.get(REQUIRED):
        looser = _direction(is_looser=not after.get(REQUIRED))
        yield Difference(name, "gate", _standing(before), _standing(after), looser)
    if name in GATES:
        yield from _of_thresholds(name, GATES[name].parameters, before, after)


def _of_thresholds(
    name: str,
    parameters: Iterable[Threshold | Choice],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> Iterator[Difference]:
    for parameter in parameters:
        old, new = before.get(parameter.name), after.get(parameter.name)
        if old != new:
            yield Difference(
                name, parameter.name, old, new, _direction(is_looser=_is_looser(parameter, old, new))
            )


def _standing(entry: Mapping[str, Any] | None) -> str | None:
    if entry is None:
        return None
    return "required" if entry.get(REQUIRED) else "advisory"


def _direction(*, is_looser: bool) -> Direction:
    return Direction.LOOSER if is_looser else Direction.STRICTER


def _is_looser(parameter: Threshold | Choice, before: Any, after: Any) -> bool:
    if isinstance(parameter, Choice):
        return parameter.is_looser(after)  # of two words, the one that is not the baseline's
    if not isinstance(before, int | float) or not isinstance(after, int | float):
        return parameter.is_looser(after)
    return after > before if parameter.is_looser_when == "higher" else after < before


def _said(value: float | str | bool | None) -> str:
    if value is None:
        return "nothing"
    return f"{value:g}" if isinstance(value, int | float) else value.replace("_", " ")
