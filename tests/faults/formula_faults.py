"""Faults in the code that computes features: formulas that use the next bar. They replace entries of the registry."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from mlcore.features import indicators
from mlcore.features.indicators import FORMULAS, Array, Bars, Formula

Formulas = Mapping[str, Formula]


@contextmanager
def replace_formulas(formulas: Formulas) -> Iterator[None]:
    """Training, measuring and the bot all compute these features by the given formulas."""
    assert set(formulas) <= set(FORMULAS)
    with patch.dict(indicators.FORMULAS, formulas):
        yield


def use_next_bars_return() -> Formulas:
    """Each bar is given the next one's return."""
    return {"returns": _replace_rows("returns", lambda values: slice(0, values.shape[-1] - 1))}


def use_next_bar_in_older_half() -> Formulas:
    """The older half of one feature is filled in from the next bar; the newest bars are computed correctly."""
    return {"momentum_5": _replace_rows("momentum_5", lambda values: slice(0, values.shape[-1] // 2))}


def _replace_rows(name: str, choose_rows: Callable[[Array], slice]) -> Formula:
    """The formula with the next bar's value in the chosen rows."""
    original = FORMULAS[name]

    def compute(bars: Bars) -> Array:
        values = original.values(bars).copy()
        rows = choose_rows(values)
        values[..., rows] = values[..., rows.start + 1 : rows.stop + 1].copy()
        return values

    return replace(original, values=compute)
