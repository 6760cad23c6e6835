"""Lines: families of models, each with the recipe that trains it. Every launch and every import names one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.db import IntegrityError

from accounts import names
from accounts.decisions import decision
from accounts.roles import GATE, Actor, Role
from audit import services as audit
from common.errors import Conflict, DomainError, InvalidInput
from mlcore.errors import InvalidParameter
from mlcore.features.labels import LabelKind
from mlcore.fitting.installed import InstalledRecipe
from mlcore.fitting.recipes import FLAT_LINE, RECIPES, Recipe
from training.jobs import installed_recipes
from training.models import Line

DEFAULT_LINE = "v7_fixed"
BUILT_IN = {
    DEFAULT_LINE: "the retrained line",
    "v5": "the fallback line",
    "v6_enhanced": "reproduces the failures",
    FLAT_LINE: "a fallback that always answers neutral",
}
"""The lines that every installation has, each trained by the recipe of its name."""

NAME_PATTERN = "[a-z][a-z0-9_]{0,31}"


@audit.locked()
def ensure_lines() -> None:
    """Create the built-in lines that are missing."""
    known = set(Line.objects.values_list("name", flat=True))
    for name, description in BUILT_IN.items():
        if name not in known:
            Line.objects.create(name=name, description=description, recipe=name, created_by=str(GATE))


def create_line(
    name: str,
    *,
    description: str = "",
    recipe: str = "",
    defaults: Mapping[str, Any] | None = None,
    actor: Actor,
    reason: str,
) -> Line:
    """Create a line. It never changes afterwards. Without a recipe it holds imported models only.

    Raises NotAllowed without the operator role, InvalidInput for a name, recipe or setting that cannot be, and Conflict for
    a name that is taken or that a reader could take for another line's.
    """
    line = Line(name=name[:32], description=description.strip(), recipe=recipe, created_by=actor.name)
    line.defaults = {setting: value for setting, value in (defaults or {}).items() if value is not None}
    with decision(
        "line.create", line, actor=actor, role=Role.OPERATOR, to="create a line", reason=reason
    ) as reason:
        _check_line(name, line)
        try:
            with audit.locked():
                _require_distinct(name)
                line.save(force_insert=True)
                detail = {"recipe": line.recipe, "defaults": line.defaults, "description": line.description}
                audit.record("line.created", line, actor=actor, reason=reason, detail=detail)
        except IntegrityError as known:
            raise Conflict(f"There is a line {name} already.") from known
    return line


def find_line(name: str) -> Line:
    """Raises InvalidInput, naming the lines there are."""
    line = Line.objects.filter(name=name).first()
    if line is None:
        raise InvalidInput(f"There is no line {name[:40]!r}; choose {', '.join(list_names())}.", field="line")
    return line


def list_names() -> list[str]:
    """Every line, the built-in ones first."""
    return list(Line.objects.values_list("name", flat=True))


def list_importable_names() -> list[str]:
    """The lines that a model from outside can be of. A flat model is only made here."""
    return list(Line.objects.exclude(recipe=FLAT_LINE).values_list("name", flat=True))


def list_recipe_names() -> list[str]:
    """The built-in recipes, and those of packages that are installed here."""
    return list(dict.fromkeys([*RECIPES, *installed_recipes.list_packages()]))


def find_recipe(name: str) -> Recipe:
    """A recipe by its name, as it is without a line. Raises InvalidInput, naming the recipes there are."""
    recipe = RECIPES.get(name) or installed_recipes.find_recipe(name)
    if recipe is None:
        raise InvalidInput(
            f"There is no recipe {name[:40]!r} here; choose {', '.join(list_recipe_names())}, or install the package that"
            " has it (docs/models.md, Own recipes).",
            field="recipe",
        )
    return recipe


@dataclass(frozen=True)
class ListedRecipe:
    """A recipe that there is here."""

    name: str
    package: str
    """Name and version of what provides it; empty for a built-in one."""
    recipe: Recipe | None
    problem: str
    """Why it cannot be used; empty if it can."""


def list_recipes() -> list[ListedRecipe]:
    """The built-in recipes, and those of packages."""
    return [look_up_recipe(name) for name in list_recipe_names()]


def look_up_recipe(name: str) -> ListedRecipe:
    """The recipe of this name, or why it cannot be used."""
    packages = ", ".join(() if name in RECIPES else installed_recipes.list_packages().get(name, ()))
    try:
        return ListedRecipe(name, packages, find_recipe(name), "")
    except DomainError as refusal:
        return ListedRecipe(name, packages, None, refusal.message)


def get_package(recipe: Recipe) -> str:
    """What provides it, such as crpbot-recipe-trees==0.1.0; empty for a built-in one."""
    return recipe.package if isinstance(recipe, InstalledRecipe) else ""


def build_recipe(line: Line, asked: Mapping[str, Any]) -> Recipe:
    """The recipe of the line with these settings. Raises InvalidInput, naming the setting and its bounds."""
    if not line.recipe:
        raise InvalidInput(
            f"{line} has no recipe: it holds imported models, and nothing is trained for it. Name a bundle for each coin.",
            field="line",
        )
    recipe = replace(find_recipe(line.recipe), line=line.name)
    for name in asked:
        if name not in recipe.settings:
            has = ", ".join(recipe.settings) or "none"
            raise InvalidInput(f"{line} has no setting {name!r}; it has {has}.", field=name)
    try:
        return recipe.with_parameters(**merge_settings(line.defaults, asked))
    except InvalidParameter as refused:
        raise InvalidInput(str(refused), field=refused.name) from refused


def show_recipe(name: str, asked: Mapping[str, Any]) -> Recipe | None:
    """The same for a page: None where the line has no recipe, or none that can be used here."""
    try:
        return build_recipe(find_line(name), asked)
    except DomainError:
        return None


def list_settings(line: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of a run: its recipe's, and what was asked to differ."""
    recipe = show_recipe(line, {})
    defaults = {name: recipe.get_default(name) for name in recipe.settings} if recipe else {}
    return {name: value for name, value in {**defaults, **parameters}.items() if value is not None}


def merge_settings(before: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The settings before with those that are asked for. Terciles have no cut: that of another label is dropped."""
    merged = {**before, **{name: value for name, value in asked.items() if value is not None}}
    if asked.get("label") == LabelKind.TERCILES and asked.get("cut") is None:
        merged.pop("cut", None)
    return merged


def _check_line(name: str, line: Line) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidInput(
            "A name has 1 to 32 small letters, digits and underscores, and begins with a letter.",
            field="name",
        )
    if len(line.description) > 200 or names.has_invisible(line.description):
        raise InvalidInput(
            "A description has 200 characters at most, all of which are drawn.", field="description"
        )
    if line.recipe:
        build_recipe(Line(name=name, recipe=line.recipe), line.defaults)
    elif line.defaults:
        raise InvalidInput("A line without a recipe has no settings.", field="defaults")


def _require_distinct(name: str) -> None:
    """Raise Conflict for a name that is taken, or could be mistaken for another's, as v7_f1xed or v7fixed for v7_fixed."""
    by_letters = {known.replace("_", ""): known for known in list_names()}
    taken = by_letters.get(names.find_confusable(name.replace("_", ""), by_letters) or "")
    if taken == name:
        raise Conflict(f"There is a line {name} already.")
    if taken is not None:
        raise Conflict(f"The name {name} could be mistaken for {taken}, which is a line already.")
