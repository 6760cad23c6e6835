"""Typed access to a measurement. A value that is missing, or is no finite number, raises: it cannot pass a gate."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

Value = TypeVar("Value")


class NotMeasured(Exception):
    """A figure that a gate needs is missing, or is not a number one can judge by."""

    def __init__(self, message: str, figure: float | None = None, *, brief: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.figure = figure
        self.brief = brief or message
        """Shown in place of the figure."""


@dataclass(frozen=True)
class MeasurementReader:
    """One document of `mlcore.evaluation.measure`, read by path. Every reader raises NotMeasured."""

    document: Mapping[str, Any]
    symbol: str = ""

    @property
    def coin(self) -> str:
        """The coin as sentences name it; a missing one decides nothing."""
        coin = self.symbol or self.document.get("coin")
        return coin[:12] if isinstance(coin, str) and coin else "The model"

    def section(self, *path: str) -> Mapping[str, Any]:
        return self._require(dict, path)

    def number(self, *path: str, least: float = -math.inf, greatest: float = math.inf) -> float:
        """A finite number between bounds that no sound measurement exceeds."""
        value = self._get(path)
        if value is None and (word := self._get_non_finite(path)):
            value = float(word)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._missing(path)
        number = _to_float(value)
        if not math.isfinite(number):
            raise NotMeasured(f"{_format_path(path)} is {number}, which is not a finite number", number)
        if not least <= number <= greatest:
            raise NotMeasured(f"{_format_path(path)} is {number:g}, which is out of bounds", number)
        return number

    def share(self, *path: str) -> float:
        """A part of a whole, 0…1."""
        return self.number(*path, least=0, greatest=1)

    def shares(self, *path: str, names: tuple[str, ...]) -> dict[str, float]:
        """The shares of these names, which must add up to 1."""
        shares = {name: self.share(*path, name) for name in names}
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise NotMeasured(
                f"the shares in {_format_path(path)} add up to {sum(shares.values()):.4g}, not to 1"
            )
        return shares

    def count(self, *path: str) -> int:
        number = self.number(*path, least=0)
        if number != int(number):
            raise NotMeasured(f"{_format_path(path)} is {number:g}, which is not a count", number)
        return int(number)

    def flag(self, *path: str) -> bool:
        return self._require(bool, path)

    def is_false(self, *path: str) -> bool:
        """Whether this was found not to hold. What is not known is not false."""
        return self._get(path) is False

    def names(self, *path: str) -> list[str]:
        return [str(name) for name in self._require(list, path)]

    def text(self, *path: str) -> str:
        return self._require(str, path)

    def timestamp(self, *path: str) -> datetime:
        """A time with its zone."""
        text = self.text(*path)
        try:
            timestamp = datetime.fromisoformat(text)
        except ValueError:
            raise NotMeasured(f"{_format_path(path)} is {text[:40]!r}, which is not a time") from None
        if timestamp.tzinfo is None:
            raise NotMeasured(f"{_format_path(path)} is {text[:40]!r}, which has no time zone")
        return timestamp

    def is_null(self, *path: str) -> bool:
        """Whether the value is null. Not where it is missing, nor where null stands for NaN or infinity."""
        *above, last = path
        parent = self.section(*above) if above else self.document
        return last in parent and parent[last] is None and self._get_non_finite(path) is None

    def problem(self, *path: str) -> str | None:
        """What went wrong while this section was measured. A section without the field raises: that is not "nothing"."""
        if "problem" not in self.section(*path):
            raise NotMeasured(f"whether {_format_path(path)} could be measured is not known")
        problem = self._get((*path, "problem"))
        return None if problem is None else str(problem)[:500] or "no reason given"

    def require_no_problem(self, *path: str) -> None:
        """Raise NotMeasured where something went wrong while this section was measured."""
        problem = self.problem(*path)
        if problem is not None:
            raise NotMeasured(problem)

    def _require(self, kind: type[Value], path: tuple[str, ...]) -> Value:
        value = self._get(path)
        if not isinstance(value, kind) or value == "":
            raise self._missing(path)
        return value

    def _missing(self, path: tuple[str, ...]) -> NotMeasured:
        """With the problem that the measurement itself reports, in the section or as a whole."""
        problems = (self._get((path[0], "problem")), self._get(("problem",)))
        problem = next((problem for problem in problems if problem), None)
        message = f"{_format_path(path)} was not measured"
        if not problem:
            return NotMeasured(message)
        return NotMeasured(f"{message}: {str(problem)[:500]}", brief=f"not measured: {problem}")

    def _get(self, path: tuple[str, ...]) -> Any:
        value: Any = self.document
        for step in path:
            value = value.get(step) if isinstance(value, Mapping) else None
        return value

    def _get_non_finite(self, path: tuple[str, ...]) -> str | None:
        """The word ("nan", "inf", "-inf") that the document holds for a figure stored as null."""
        words = self.document.get("non_finite")
        word = words.get(".".join(path)) if isinstance(words, Mapping) else None
        return word if word in ("nan", "inf", "-inf") else None


def _to_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond what a float holds
        return math.inf if value > 0 else -math.inf


def _format_path(path: tuple[str, ...]) -> str:
    return " ".join(path).replace("_", " ")
