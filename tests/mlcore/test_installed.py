"""Recipes of packages, as far as no code of theirs runs: what is found, what a description must hold, what it takes."""

from pathlib import Path
from typing import Any

import pytest

from mlcore.errors import InvalidParameter
from mlcore.fitting.installed import InstalledRecipe, RecipeRefused, find_entry_points
from mlcore.fitting.settings import Parameter
from tests.installed_recipes import install

TREES = {"default": 60, "least": 1, "greatest": 400, "meaning": "trees of each class"}
RATE = {"default": 0.1, "least": 0.0, "greatest": 1}


def parse(**changes: Any) -> InstalledRecipe:
    document = {"inputs": ["relative72", "window64"], "parameters": {"trees": TREES, "rate": RATE}, **changes}
    return InstalledRecipe.parse("trees", "crpbot-recipe-trees==0.1.0", document)


def test_a_description_gives_settings_with_their_bounds() -> None:
    recipe = parse(parameters={"trees": TREES, "rate": RATE, "epochs": {"default": 12}})
    assert recipe.own == {
        "trees": Parameter(1, 400, True, "trees of each class"),
        "rate": Parameter(0.0, 1, False, "rate"),
    }
    assert (recipe.schema, recipe.epochs, recipe.get_default("trees")) == ("relative72", 12, 60)
    assert list(recipe.adjustable) == ["epochs", "trees", "rate"]
    assert {"input", "horizon", "label", "fit_percent"} < set(recipe.contract)
    assert "hidden_widths" not in recipe.settings


def test_settings_are_checked_and_kept() -> None:
    recipe = parse().with_parameters(trees=5, horizon=24, input="window100", rate=None)
    assert recipe.fit_parameters == {"trees": 5, "rate": 0.1}
    assert (recipe.horizon, recipe.input.shape) == (24, (100, 5))
    assert recipe.with_parameters(rate=0.2).fit_parameters == {"trees": 5, "rate": 0.2}
    stated = recipe.parameters()
    assert (stated["network"], stated["settings"]["trees"], stated["settings"]["horizon"]) == ("onnx", 5, 24)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"trees": 401}, "trees: 401 is out of bounds; choose a value from 1 to 400"),
        ({"trees": 10**400}, "trees: it is out of bounds"),
        ({"rate": -(10**400)}, "rate: it is out of bounds"),
        ({"rate": float("nan")}, "rate: nan is out of bounds"),
        ({"trees": 1.5}, "not a whole number"),
        ({"leaves": 3}, "no such setting; it has trees, rate"),
        ({"hidden_widths": "8-8-8"}, "no such setting"),
        ({"input": "raw72"}, "the recipe trees takes relative72, window64"),
        ({"label": "percent"}, "cut"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_setting_that_it_does_not_take_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidParameter, match=why):
        parse().with_parameters(**changes)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"inputs": []}, "INPUTS is empty"),
        ({"inputs": ["daily"]}, "there is no input 'daily'"),
        ({"inputs": None}, "docs/models.md asks"),
        ({"parameters": {"trees": {"least": 1}}}, "'default' is missing"),
        ({"parameters": {"trees": {**TREES, "default": 0}}}, "its default 0 is not from 1 to 400"),
        ({"parameters": {"trees": {**TREES, "greatest": float("nan")}}}, "must be numbers"),
        ({"parameters": {"trees": {**TREES, "greatest": "many"}}}, "must be numbers"),
        ({"parameters": {"seed": TREES}}, "cannot be called 'seed'"),
        ({"parameters": {"dataset_BTC": TREES}}, "cannot be called"),
        ({"parameters": {"horizon": TREES}}, "cannot be called 'horizon'"),
        ({"parameters": {"epochs": {"default": 51}}}, "epochs: 51 is out of bounds"),
        ({"parameters": {f"p{n}": TREES for n in range(21)}}, "at most 20"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_description_that_cannot_be_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(RecipeRefused, match=why):
        parse(**changes)


def test_recipes_are_found_by_their_packages_without_running_them(tmp_path: Path) -> None:
    packages = {install(tmp_path, "raise SystemExit", name=name) for name in ("one", "two")}
    found = find_entry_points([str(tmp_path), str(tmp_path)])
    assert {package for points in found.values() for _, package in points} == packages
    assert [len(points) for points in found.values()] == [1, 1]


def test_a_recipe_in_two_packages_is_found_twice(tmp_path: Path) -> None:
    install(tmp_path / "a", version="1")
    install(tmp_path / "b", version="2")
    found = find_entry_points([str(tmp_path / "a"), str(tmp_path / "b")])
    assert [package[-1] for _, package in found["constant"]] == ["1", "2"]
