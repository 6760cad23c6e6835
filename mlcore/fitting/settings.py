"""What a person may change when launching a recipe: each setting with its default, its bounds and its meaning.

Pages, API and commands build their fields from these, and `Recipe.with_parameters` checks every value by them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mlcore.constants import HIDDEN_WIDTHS
from mlcore.errors import InvalidParameter, check_bounds
from mlcore.features.indicators import LOOKBACK, describe_inputs, find_schema
from mlcore.features.labels import CUT_BOUNDS, MAX_HORIZON_BARS, MIN_HORIZON_BARS, LabelKind
from mlcore.features.windows import MIN_BARS

MIN_WIDTH, MAX_WIDTH = 8, 1024
BALANCED, EQUAL = "balanced", "equal"


@dataclass(frozen=True)
class Parameter:
    """A number that a person may change, with inclusive bounds."""

    least: float
    greatest: float
    is_whole: bool
    meaning: str

    def validate(self, name: str, value: object) -> int | float:
        """The value as a number within the bounds. Raises InvalidParameter."""
        is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not isinstance(value, int | float) or (self.is_whole and not is_whole):
            raise InvalidParameter(name, f"{value!r} is not a {'whole ' if self.is_whole else ''}number")
        check_bounds(name, value, self.least, self.greatest)
        return int(value) if self.is_whole else float(value)


@dataclass(frozen=True)
class Word:
    """One of a few words."""

    words: tuple[str, ...]
    meaning: str

    def validate(self, name: str, value: object) -> str:
        """Raises InvalidParameter."""
        if value not in self.words:
            raise InvalidParameter(name, f"{str(value)[:40]!r} is none of {', '.join(self.words)}")
        return str(value)


@dataclass(frozen=True)
class Input:
    """The name of an input."""

    meaning: str
    pattern = r"raw72|relative72|window[1-9][0-9]{1,3}"

    def validate(self, name: str, value: object) -> str:
        """Raises InvalidParameter."""
        if not isinstance(value, str) or find_schema(value) is None:
            raise InvalidParameter(name, f"there is no input {str(value)[:40]!r}; choose {describe_inputs()}")
        return value


@dataclass(frozen=True)
class Widths:
    """The widths of the three hidden layers."""

    meaning: str
    pattern = r"[0-9]{1,4}-[0-9]{1,4}-[0-9]{1,4}"

    def validate(self, name: str, value: object) -> str:
        """Raises InvalidParameter."""
        widths = read_widths(value) if isinstance(value, str) and re.fullmatch(self.pattern, value) else ()
        if not widths or not all(MIN_WIDTH <= width <= MAX_WIDTH for width in widths):
            raise InvalidParameter(
                name,
                f"write three widths from {MIN_WIDTH} to {MAX_WIDTH:,}, such as {write_widths(HIDDEN_WIDTHS)}",
            )
        return write_widths(widths)


Setting = Parameter | Word | Input | Widths


def read_widths(text: str) -> tuple[int, ...]:
    return tuple(int(width) for width in text.split("-"))


def write_widths(widths: tuple[int, ...]) -> str:
    return "-".join(map(str, widths))


TRAINING: Mapping[str, Parameter] = {
    "epochs": Parameter(1, 50, True, "passes over the fit window, at most"),
    "batch_size": Parameter(16, 4096, True, "rows of one update"),
    "learning_rate": Parameter(1e-5, 1e-2, False, "Adam's step size"),
    "patience": Parameter(1, 50, True, "epochs without a better validation loss before training stops"),
    "label_smoothing": Parameter(0.0, 0.5, False, "share of each label spread evenly over all three classes"),
}
"""How the recipe is fitted."""

_LEAST_CUT = min(least for least, _ in CUT_BOUNDS.values())
_GREATEST_CUT = max(greatest for _, greatest in CUT_BOUNDS.values())

CONTRACT: Mapping[str, Setting] = {
    "input": Input(
        f"what the model sees of a bar: 72 features, or the last bars as they are (window{MIN_BARS} to window{LOOKBACK})"
    ),
    "horizon": Parameter(MIN_HORIZON_BARS, MAX_HORIZON_BARS, True, "bars that the label looks ahead"),
    "label": Word(tuple(LabelKind), "how the move over the horizon becomes a class"),
    "cut": Parameter(
        _LEAST_CUT,
        _GREATEST_CUT,
        False,
        "for the label percent: the least move in percent; for barriers: their distance in volatilities",
    ),
    "class_weights": Word((BALANCED, EQUAL), "whether rare classes weigh more in the loss"),
    "hidden_widths": Widths("widths of the three hidden layers"),
    "fit_percent": Parameter(50, 80, True, "share of the rows that weights are fitted on"),
    "stop_percent": Parameter(
        5, 25, True, "share of the rows that training stops by; the gates get the rest"
    ),
}
"""What the recipe sees, predicts and is judged on."""
