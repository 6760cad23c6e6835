"""The recipe of each line: how it is trained, and which settings a person may change."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from mlcore.constants import HIDDEN_WIDTHS
from mlcore.errors import InvalidParameter
from mlcore.features.indicators import Schema, find_schema
from mlcore.features.labels import HORIZON_BARS, Label, LabelKind
from mlcore.features.splits import FIT_PERCENT, STOP_PERCENT, Shares
from mlcore.features.terms import Terms
from mlcore.fitting.settings import (
    BALANCED,
    CONTRACT,
    EQUAL,
    TRAINING,
    Parameter,
    Setting,
    read_widths,
    write_widths,
)


@dataclass(frozen=True)
class Recipe:
    """How one line is trained. A field that is None does not apply to the line and cannot be set.

    Raises InvalidParameter for a label or a split that there is not.
    """

    line: str
    schema: str
    """The name of its input."""
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
    label_kind: str = LabelKind.TERCILES.value
    horizon: int = HORIZON_BARS
    cut: float | None = None
    """See `labels.Label`."""
    hidden_widths: tuple[int, ...] | None = None
    fit_percent: int = FIT_PERCENT
    stop_percent: int = STOP_PERCENT
    has_contract: bool = False
    """Whether a person may change what the line sees, predicts and is judged on."""

    def __post_init__(self) -> None:
        _ = self.label, self.shares  # raise

    @property
    def input(self) -> Schema:
        schema = find_schema(self.schema)
        assert schema is not None
        return schema

    @property
    def label(self) -> Label:
        """Raises InvalidParameter."""
        return Label(LabelKind(self.label_kind), self.horizon, self.cut)

    @property
    def shares(self) -> Shares:
        """Raises InvalidParameter."""
        return Shares(self.fit_percent, self.stop_percent)

    def judged_by(self, label: Label, shares: Shares) -> Self:
        """The recipe for another label and split, as a baseline needs it whatever its line lets a person change."""
        return replace(
            self,
            label_kind=str(label.kind),
            horizon=label.horizon,
            cut=label.cut,
            fit_percent=shares.fit_percent,
            stop_percent=shares.stop_percent,
        )

    @property
    def contract(self) -> dict[str, Setting]:
        """{name: setting} of what the line sees, predicts and is judged on, if a person may change that."""
        return dict(CONTRACT) if self.has_contract else {}

    @property
    def settings(self) -> dict[str, Setting]:
        """{name: setting} of all that a person may change."""
        return {**self._settable, **self.contract}

    def get_default(self, name: str) -> Any:
        """The value of a setting, as `with_parameters` takes it."""
        if name == "input":
            return self.schema
        if name == "label":
            return self.label_kind
        if name == "class_weights":
            return BALANCED if self.weighs_classes else EQUAL
        value = getattr(self, name)
        return write_widths(value) if name == "hidden_widths" and value else value

    @property
    def adjustable(self) -> dict[str, dict[str, Any]]:
        """{parameter: {default, least, greatest, is_whole, meaning}} for forms and the API."""
        settable = self._settable.items()
        return {name: {"default": self.get_default(name), **asdict(setting)} for name, setting in settable}

    def with_parameters(self, **changes: float | str | None) -> Self:
        """The recipe with some settings changed; None leaves one unchanged.

        Raises InvalidParameter with the setting's name and its bounds.
        """
        settable, checked = self.settings, dict[str, Any]()
        for name, value in changes.items():
            if value is None:
                continue
            if name not in settable:
                has = ", ".join(settable) or "none: it trains to convergence"
                raise InvalidParameter(name, f"{self.line} has no such setting; it has {has}")
            checked[name] = settable[name].validate(name, value)
        return replace(self, **_to_fields(checked))

    def parameters(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        fields = asdict(self)
        del fields["has_contract"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}

    @property
    def reports(self) -> int:
        """How many epochs it reports at most."""
        return self.epochs or 1

    @property
    def _settable(self) -> dict[str, Parameter]:
        return {name: setting for name, setting in TRAINING.items() if getattr(self, name) is not None}


def _to_fields(checked: dict[str, Any]) -> dict[str, Any]:
    """The fields of a recipe for checked settings, some of which have other names or types."""
    fields = dict(checked)
    for name, field in (("input", "schema"), ("label", "label_kind")):
        if name in fields:
            fields[field] = fields.pop(name)
    if "class_weights" in fields:
        fields["weighs_classes"] = fields.pop("class_weights") == BALANCED
    if "hidden_widths" in fields:
        fields["hidden_widths"] = read_widths(fields["hidden_widths"])
    return fields


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
    hidden_widths=HIDDEN_WIDTHS,
    has_contract=True,
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
    has_contract=False,
)
_FLAT = Recipe("flat", schema="relative72", network="flat")
RECIPES = {recipe.line: recipe for recipe in (_V5, _V6_ENHANCED, _V7_FIXED, _FLAT)}

BASELINE_LINE = "v5"
"""No other line may be worse than this one."""
FLAT_LINE = "flat"
"""Answers neutral whatever the candles are: a fallback for a desk that would rather not trade than trade on v5."""
IMPORTED_LINES = tuple(line for line in RECIPES if line != FLAT_LINE)
"""A model from outside can be of each of these: a flat one is only made here."""
LINES_WITHOUT_ATTEMPTS = frozenset({"v5", "v6_enhanced", "flat"})
"""Lines whose bundles are not counted as attempts at a release: v5 and flat have no setting to try again with, and
v6_enhanced leaves its scaler out. Every other line counts, future ones too."""


def build_baseline_recipe(terms: Terms) -> Recipe:
    """The recipe of that line for the candidate's label and split."""
    return RECIPES[BASELINE_LINE].judged_by(terms.label, terms.shares)
