"""Reading figures out of a measurement. Whatever is not there, or is no sound number, cannot pass anything."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


class NotMeasured(Exception):
    """A figure that a gate needs is missing, or is not a number one can judge by."""

    def __init__(self, message: str, figure: float | None = None, *, brief: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.figure = figure
        self.brief = brief or message
        """The same where a figure would stand."""


@dataclass(frozen=True)
class Figures:
    """One document of `mlcore.evaluation.measure`, read by path. Every reader raises NotMeasured."""

    document: Mapping[str, Any]
    subject: str = ""

    @property
    def coin(self) -> str:
        """Whom a sentence is about; only words, so that a missing one decides nothing."""
        coin = self.subject or self.document.get("coin")
        return coin[:12] if isinstance(coin, str) and coin else "The model"

    def section(self, *path: str) -> Mapping[str, Any]:
        found = self._at(path)
        if not isinstance(found, Mapping):
            raise self._missing(path)
        return found

    def number(self, *path: str, least: float = -math.inf, greatest: float = math.inf) -> float:
        """A finite number within what such a figure can be."""
        found = self._at(path)
        word = self._word(path)
        if found is None and word:
            raise NotMeasured(f"{_name(path)} is {word}, which is no number to judge by", float(word))
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self._missing(path)
        value = _as_float(found)
        if not math.isfinite(value):
            raise NotMeasured(f"{_name(path)} is {value}, which is no number to judge by", value)
        if not least <= value <= greatest:
            raise NotMeasured(f"{_name(path)} is {value:g}, which no sound measuring gives", value)
        return value

    def share(self, *path: str) -> float:
        """A part of a whole, 0…1."""
        return self.number(*path, least=0, greatest=1)

    def count(self, *path: str) -> int:
        found = self.number(*path, least=0)
        if found != int(found):
            raise NotMeasured(f"{_name(path)} is {found:g}, which is no count", found)
        return int(found)

    def flag(self, *path: str) -> bool:
        found = self._at(path)
        if not isinstance(found, bool):
            raise self._missing(path)
        return found

    def says_no(self, *path: str) -> bool:
        """Whether this was found not to hold; not so where it is not known."""
        return self._at(path) is False

    def names(self, *path: str) -> list[str]:
        found = self._at(path)
        if not isinstance(found, list):
            raise self._missing(path)
        return [str(name) for name in found]

    def text(self, *path: str) -> str:
        found = self._at(path)
        if not isinstance(found, str) or not found:
            raise self._missing(path)
        return found

    def moment(self, *path: str) -> datetime:
        """A time with its zone."""
        said = self.text(*path)
        try:
            found = datetime.fromisoformat(said)
        except ValueError:
            raise NotMeasured(f"{_name(path)} is {said[:40]!r}, which is no time") from None
        if found.tzinfo is None:
            raise NotMeasured(f"{_name(path)} is {said[:40]!r}, which names no zone")
        return found

    def is_null(self, *path: str) -> bool:
        """Whether it is said outright that there is none; not so where nothing is said, or the word for a figure."""
        *above, last = path
        found = self.section(*above) if above else self.document
        return last in found and found[last] is None and self._word(path) is None

    def problem(self, *path: str) -> str | None:
        """What went wrong while this section was measured. It must say so outright: silence is not "nothing"."""
        if "problem" not in self.section(*path):
            raise NotMeasured(f"whether {_name(path)} could be measured is not known")
        found = self._at((*path, "problem"))
        return None if found is None else str(found)[:500] or "it does not say what"

    def require_sound(self, *path: str) -> None:
        """Raise NotMeasured where something went wrong while this section was measured."""
        problem = self.problem(*path)
        if problem is not None:
            raise NotMeasured(problem)

    def _missing(self, path: tuple[str, ...]) -> NotMeasured:
        """With what the measuring itself says went wrong, there or as a whole."""
        why = next((said for said in (self._at((path[0], "problem")), self._at(("problem",))) if said), None)
        message = f"{_name(path)} was not measured"
        if not why:
            return NotMeasured(message)
        return NotMeasured(f"{message}: {str(why)[:500]}", brief=f"not measured: {why}")

    def _at(self, path: tuple[str, ...]) -> Any:
        found: Any = self.document
        for step in path:
            found = found.get(step) if isinstance(found, Mapping) else None
        return found

    def _word(self, path: tuple[str, ...]) -> str | None:
        """The word ("nan", "inf", "-inf") that stands beside a figure stored as null."""
        words = self.document.get("non_finite")
        word = words.get(".".join(path)) if isinstance(words, Mapping) else None
        return word if word in ("nan", "inf", "-inf") else None


def _as_float(found: int | float) -> float:
    try:
        return float(found)
    except OverflowError:  # an integer beyond what a float holds
        return math.inf if found > 0 else -math.inf


def _name(path: tuple[str, ...]) -> str:
    return " ".join(path).replace("_", " ")
