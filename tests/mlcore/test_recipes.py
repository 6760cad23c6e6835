"""Recipes: what a person may change, and within which bounds."""

import json

import pytest

from mlcore.errors import InvalidParameter
from mlcore.fitting.recipes import RECIPES

V7 = RECIPES["v7_fixed"]


def test_the_lines_are_there() -> None:
    assert {line: recipe.schema for line, recipe in RECIPES.items()} == {
        "v5": "relative72",
        "v6_enhanced": "raw72",
        "v7_fixed": "relative72",
        "flat": "relative72",
    }


def test_only_v6_leaves_its_scaler_behind() -> None:
    assert {line for line, recipe in RECIPES.items() if not recipe.keeps_scaler} == {"v6_enhanced"}


def test_v7_has_the_plans_parameters() -> None:
    assert (V7.epochs, V7.batch_size, V7.learning_rate, V7.patience) == (50, 64, 1e-3, 10)


def test_parameters_are_plain_json() -> None:
    for recipe in RECIPES.values():
        assert json.loads(json.dumps(recipe.parameters())) == recipe.parameters()


def test_changed_parameters_are_taken_and_none_leaves_the_default() -> None:
    changed = V7.with_parameters(epochs=5, batch_size=4096, learning_rate=None, patience=3)
    assert (changed.epochs, changed.batch_size, changed.learning_rate, changed.patience) == (5, 4096, 1e-3, 3)
    assert V7.epochs == 50


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("epochs", 0, "from 1 to 50"),
        ("epochs", 51, "from 1 to 50"),
        ("epochs", 2.5, "not a whole number"),
        ("epochs", True, "not a whole number"),
        ("batch_size", 8, "from 16 to 4096"),
        ("batch_size", "64", "not a whole number"),
        ("learning_rate", 1.0, "from 1e-05 to 0.01"),
        ("learning_rate", float("nan"), "from 1e-05 to 0.01"),
        ("label_smoothing", -0.1, "from 0 to 0.5"),
        ("momentum", 0.9, "no such setting; it has epochs, batch_size"),
        ("keeps_scaler", False, "no such setting"),
    ],
)
def test_a_parameter_out_of_bounds_is_refused_by_name_and_bound(name: str, value: float, reason: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        V7.with_parameters(**{name: value})
    assert refused.value.name == name
    assert reason in str(refused.value)


def test_a_whole_number_written_as_a_fraction_is_taken_as_whole() -> None:
    assert V7.with_parameters(epochs=5.0).parameters()["epochs"].__class__ is int


def test_v5_trains_to_convergence_and_has_nothing_to_set() -> None:
    assert RECIPES["v5"].adjustable == {}
    with pytest.raises(
        InvalidParameter, match="v5 has no such setting; it has none: it trains to convergence"
    ):
        RECIPES["v5"].with_parameters(epochs=5)


@pytest.mark.parametrize("line", ["v6_enhanced", "v7_fixed"])
def test_the_bounds_shown_are_the_bounds_checked(line: str) -> None:
    recipe = RECIPES[line]
    for name, shown in recipe.adjustable.items():
        assert recipe.parameters()[name] == shown["default"]
        recipe.with_parameters(**{name: shown["least"]})
        recipe.with_parameters(**{name: shown["greatest"]})
        with pytest.raises(InvalidParameter):
            recipe.with_parameters(**{name: shown["greatest"] * 1.5 + 1})
