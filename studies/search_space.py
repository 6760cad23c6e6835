"""The ranges that a study searches, within the bounds of its recipe's settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlcore.errors import InvalidParameter
from mlcore.fitting.recipes import Recipe
from mlcore.fitting.settings import Parameter
from studies.rules import MAX_RANGES, Objective

KINDS = ("int", "float", "log", "choice")
MAX_CHOICES = 20
JUDGED_BY = ("input", "label", "horizon", "cut", "fit_percent", "stop_percent")
"""Settings that change what is judged: the figures of trials that differ in them cannot be compared."""
CHANGES_LOSS = ("label_smoothing", "class_weights")
"""Settings that change the formula of the loss."""

Value = float | int | str


@dataclass(frozen=True)
class Range:
    """The values that one setting may take: from `low` to `high`, or one of `choices`."""

    name: str
    kind: str
    """"int", "float", "log" (evenly over orders of magnitude) or "choice"."""
    is_whole: bool = False
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Value, ...] = ()

    @property
    def document(self) -> dict[str, Any]:
        """As it is stored and as the API has it."""
        if self.kind == "choice":
            return {"kind": self.kind, "choices": list(self.choices)}
        return {"kind": self.kind, "low": self.low, "high": self.high}

    @property
    def text(self) -> str:
        """As a person reads it."""
        if self.kind == "choice":
            return ", ".join(map(str, self.choices))
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.kind == 'log' else ''}"


def read_ranges(recipe: Recipe, document: Mapping[str, Any], objective: Objective) -> list[Range]:
    """The checked ranges {setting: {kind, low, high} or {kind, choices}}, in the order of the recipe's settings.

    Raises InvalidParameter, naming the setting, for what the recipe or the objective does not allow.
    """
    if not 1 <= len(document) <= MAX_RANGES:
        raise InvalidParameter("ranges", f"give 1 to {MAX_RANGES} settings a range")
    for name in document:
        if name not in recipe.settings:
            has = ", ".join(recipe.settings) or "none"
            raise InvalidParameter(name, f"the recipe has no such setting; it has {has}")
        if name in JUDGED_BY:
            raise InvalidParameter(name, "it changes what is judged, so trials could not be compared: fix it")
        if name in CHANGES_LOSS and objective == Objective.LOSS:
            raise InvalidParameter(name, "it changes the formula of the loss: fix it, or compare by accuracy")
    return [_read_range(recipe, name, document[name]) for name in recipe.settings if name in document]


def _read_range(recipe: Recipe, name: str, asked: Any) -> Range:
    setting = recipe.settings[name]
    if not isinstance(asked, Mapping) or asked.get("kind") not in KINDS:
        raise InvalidParameter(name, f"a range is of the kind {', '.join(KINDS)}")
    kind = str(asked["kind"])
    expected = {"kind", "choices"} if kind == "choice" else {"kind", "low", "high"}
    if set(asked) != expected:
        raise InvalidParameter(
            name, f"a range of the kind {kind} has {', '.join(sorted(expected - {'kind'}))}"
        )
    if kind == "choice":
        return Range(name, kind, choices=_read_choices(recipe, name, asked["choices"]))
    if not isinstance(setting, Parameter):
        raise InvalidParameter(name, "it takes words: list its values as a choice")
    if kind == "int" and not setting.is_whole:
        raise InvalidParameter(name, "it is no whole number: use float or log")
    if kind == "float" and setting.is_whole:
        raise InvalidParameter(name, "it is a whole number: use int or log")
    low, high = setting.validate(name, asked["low"]), setting.validate(name, asked["high"])
    if low >= high:
        raise InvalidParameter(name, "low must be below high")
    if kind == "log" and low <= 0:
        raise InvalidParameter(name, "a logarithmic range begins above 0")
    return Range(name, kind, setting.is_whole, low, high)


def _read_choices(recipe: Recipe, name: str, asked: Any) -> tuple[Value, ...]:
    if not isinstance(asked, Sequence) or isinstance(asked, str) or not 2 <= len(asked) <= MAX_CHOICES:
        raise InvalidParameter(name, f"a choice has 2 to {MAX_CHOICES} values")
    values = tuple(recipe.settings[name].validate(name, value) for value in asked)
    if len(set(values)) < len(values):
        raise InvalidParameter(name, "a choice names each value once")
    return values


def parse_range(text: str) -> dict[str, Any]:
    """A range as a person writes it: "log 1e-4 1e-2", "int 2 20", "float 0 0.3" or "choice 16 32 64".

    Raises InvalidParameter without a setting's name.
    """
    kind, *words = text.replace(",", " ").split() or [""]
    if kind == "choice":
        return {"kind": kind, "choices": [_read_word(word) for word in words]}
    if kind not in KINDS or len(words) != 2:
        raise InvalidParameter(
            "ranges", 'write "log 1e-4 1e-2", "int 2 20", "float 0 0.3" or "choice 16 32 64"'
        )
    return {"kind": kind, "low": _read_word(words[0]), "high": _read_word(words[1])}


def _read_word(word: str) -> Value:
    for read in (int, float):
        try:
            return read(word)
        except ValueError:
            continue
    return word


def describe(name: str, document: Mapping[str, Any]) -> str:
    """A stored range as a person reads it."""
    if document["kind"] == "choice":
        return Range(name, "choice", choices=tuple(document["choices"])).text
    return Range(name, document["kind"], low=document["low"], high=document["high"]).text
