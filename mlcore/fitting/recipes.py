"""The recipe of each line: how it is trained, and which settings a person may change."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from mlcore.errors import InvalidParameter, check_bounds


@dataclass(frozen=True)
class Parameter:
    """A setting that a person may change when starting a run, with inclusive bounds."""

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


_PARAMETERS = {
    "epochs": Parameter(1, 50, True, "passes over the fit window, at most"),
    "batch_size": Parameter(16, 4096, True, "rows of one update"),
    "learning_rate": Parameter(1e-5, 1e-2, False, "Adam's step size"),
    "patience": Parameter(1, 50, True, "epochs without a better validation loss before training stops"),
    "label_smoothing": Parameter(0.0, 0.5, False, "share of each label spread evenly over all three classes"),
}


@dataclass(frozen=True)
class Recipe:
    """How one line is trained. A field that is None does not apply to the line and cannot be set."""

    line: str
    schema: str
    network: str
    """"perceptron" (72-256-128-64-3), "logistic" (multinomial logistic regression) or "flat" (always neutral)."""
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    patience: int | None = None
    label_smoothing: float | None = None
    dropout: tuple[float, float, float] | None = None
    weighs_classes: bool = False
    keeps_scaler: bool = True
    restores_best: bool = False

    @property
    def adjustable(self) -> dict[str, dict[str, Any]]:
        """{parameter: {default, least, greatest, is_whole, meaning}} for forms and the API."""
        settable = self._settable.items()
        return {name: {"default": getattr(self, name), **asdict(setting)} for name, setting in settable}

    def with_parameters(self, **changes: float | None) -> Self:
        """The recipe with some parameters changed; None leaves a parameter unchanged.

        Raises InvalidParameter with the parameter's name and its bounds.
        """
        settable, checked = self._settable, dict[str, Any]()
        for name, value in changes.items():
            if value is None:
                continue
            if name not in settable:
                has = ", ".join(settable) or "none: it trains to convergence"
                raise InvalidParameter(name, f"{self.line} has no such setting; it has {has}")
            checked[name] = settable[name].validate(name, value)
        return replace(self, **checked)

    def parameters(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @property
    def _settable(self) -> dict[str, Parameter]:
        return {name: setting for name, setting in _PARAMETERS.items() if getattr(self, name) is not None}


_V5 = Recipe("v5", schema="relative72", network="logistic")
_V7_FIXED = Recipe(
    line="v7_fixed",
    schema="relative72",
    network="perceptron",
    epochs=50,
    batch_size=64,
    learning_rate=1e-3,
    patience=10,
    # The specification spreads 0.1 over the two other classes, PyTorch over all three: 0.1 · 3/2.
    label_smoothing=0.15,
    dropout=(0.3, 0.3, 0.2),
    weighs_classes=True,
    restores_best=True,
)
# The failed line, unchanged: prices as features, no dropout, and a bundle without the training's scaler.
_V6_ENHANCED = replace(
    _V7_FIXED,
    line="v6_enhanced",
    schema="raw72",
    epochs=10,
    patience=None,
    label_smoothing=0.0,
    dropout=(0.0, 0.0, 0.0),
    weighs_classes=False,
    keeps_scaler=False,
    restores_best=False,
)
_FLAT = Recipe("flat", schema="relative72", network="flat")
RECIPES = {recipe.line: recipe for recipe in (_V5, _V6_ENHANCED, _V7_FIXED, _FLAT)}

BASELINE_LINE = "v5"
"""No other line may be worse than this one."""
FLAT_LINE = "flat"
"""Answers neutral whatever the candles are: a fallback for a desk that would rather not trade than trade on v5."""
LINES_WITHOUT_ATTEMPTS = frozenset({"v5", "v6_enhanced", "flat"})
"""Lines whose bundles are not counted as attempts at a release: v5 and flat have no setting to try again with, and
v6_enhanced leaves its scaler out. Every other line counts, future ones too."""
