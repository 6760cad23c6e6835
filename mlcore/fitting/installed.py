"""Recipes that are not built in: packages with the entry point group `crpbot.recipes` (docs/models.md#own-recipes).

The entry point names a module, or an object, with

    INPUTS = ("relative72", "raw72")     # or ("window64",), which takes windows of every length; the first is the default
    PARAMETERS = {"trees": {"default": 60, "least": 1, "greatest": 500, "meaning": "trees of each class"}}

    def fit(rows: Rows) -> bytes: ...    # an ONNX file, features → logits

A package needs nothing of this one. Its code is run in a sandbox alone (`mlcore.importers.installed_recipe`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import Any, Self

import numpy as np

from mlcore.errors import InvalidParameter, MlcoreError
from mlcore.features.indicators import Schema, find_schema
from mlcore.fitting.prepared import Prepared
from mlcore.fitting.recipes import Recipe
from mlcore.fitting.settings import CONTRACT, TRAINING, Parameter, Setting

GRAPH_FILE = "graph.onnx"
ROW_FILES = ("features", "labels", "stop_features", "stop_labels", "mean", "scale", "class_weights")
"""Of the rows, without `.npy`."""

GROUP = "crpbot.recipes"
NETWORK = "onnx"
"""What a manifest states as its network: the graph is not one that the service writes."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_MAX_PARAMETERS = 20
_MAX_MEANING = 200
_NOT_SET = frozenset({"hidden_widths"})
_TAKEN = frozenset({
    *CONTRACT, "seed", "line", "purpose", "name", "description", "recipe", "recipe_name", "reason", "dataset",
    "datasets", "bundle", "bundles", "parameter", "parameters", "coin", "like_run", "device", "wait", "json",
})  # fmt: skip
"""Fields of forms, requests and commands."""


class RecipeRefused(MlcoreError):
    """A package whose recipe cannot be used; the message says what to change in it."""


@dataclass(frozen=True)
class Rows:
    """What a recipe is fitted on. It holds no row of the gate window."""

    features: np.ndarray
    """float32 [n, 72], or windows [n, L, 5], of the fit window, unscaled, oldest first. It cannot be written to."""
    labels: np.ndarray
    """int64 [n]: 0 down, 1 neutral, 2 up."""
    stop_features: np.ndarray
    stop_labels: np.ndarray
    """The same of the stop window."""
    mean: np.ndarray
    scale: np.ndarray
    """float32 [72] or [5], of the fit window. A graph that begins with (features − mean) / scale holds its scaler."""
    class_weights: np.ndarray
    """float32 [3]; all 1 where the launch says so."""
    parameters: Mapping[str, float]
    """Every parameter of the recipe, as launched."""
    seed: int


@dataclass(frozen=True)
class InstalledRecipe(Recipe):
    """A recipe of a package, with the settings that its description declares."""

    name: str = ""
    package: str = ""
    """What a worker must have installed, such as crpbot-recipe-trees==0.1.0."""
    inputs: tuple[str, ...] = ()
    own: Mapping[str, Parameter] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    """Of its own parameters."""

    @classmethod
    def parse(cls, name: str, package: str, document: Any) -> Self:
        """From the description that the sandbox wrote. Raises RecipeRefused, which says what is wrong."""
        refused = f"the recipe {name} of {package}"
        try:
            inputs = tuple(_read_input(word) for word in document["inputs"])
            if not inputs:
                raise ValueError("INPUTS is empty; name relative72, raw72 or window64")
            parameters = dict(document["parameters"])
            if len(parameters) > _MAX_PARAMETERS:
                raise ValueError(f"it has {len(parameters)} parameters; at most {_MAX_PARAMETERS} are taken")
            own = {
                word: _read_parameter(word, about)
                for word, about in parameters.items()
                if word not in TRAINING
            }
            defaults = {word: about["default"] for word, about in parameters.items()}
            training = {
                word: TRAINING[word].validate(word, defaults[word]) for word in parameters if word in TRAINING
            }
            values = {word: own[word].validate(word, defaults[word]) for word in own}
        except (KeyError, TypeError, ValueError) as error:
            missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise RecipeRefused(
                f"{refused} is not described as docs/models.md asks: {missing[:300]}"
            ) from error
        return cls(
            line=name,
            schema=inputs[0],
            network=NETWORK,
            weighs_classes=True,
            has_contract=True,
            name=name,
            package=package,
            inputs=inputs,
            own=own,
            values=values,
            **training,  # type: ignore[arg-type]  # each is the number that its field holds
        )

    @property
    def contract(self) -> dict[str, Setting]:
        return {name: setting for name, setting in super().contract.items() if name not in _NOT_SET}

    @property
    def _settable(self) -> dict[str, Parameter]:
        return {**super()._settable, **self.own}

    @property
    def reports(self) -> int:
        """It reports once, when it is done."""
        return 1

    def get_default(self, name: str) -> Any:
        return self.values[name] if name in self.own else super().get_default(name)

    def with_parameters(self, **changes: float | str | None) -> Self:
        own = {name: value for name, value in changes.items() if name in self.own and value is not None}
        rest = {name: value for name, value in changes.items() if name not in self.own}
        checked = {name: self.own[name].validate(name, value) for name, value in own.items()}
        changed = replace(super().with_parameters(**rest), values={**self.values, **checked})
        if not changed.takes(changed.input):
            raise InvalidParameter("input", f"the recipe {self.name} takes {', '.join(self.inputs)}")
        return changed

    def takes(self, schema: Schema) -> bool:
        """Whether it names this input; a recipe that names one window takes windows of every length."""
        if schema.is_window:
            return any(_is_window(name) for name in self.inputs)
        return schema.name in self.inputs

    def parameters(self) -> dict[str, Any]:
        settings = {name: self.get_default(name) for name in self.settings}
        return {"network": NETWORK, "line": self.line, "settings": settings}

    @property
    def fit_parameters(self) -> dict[str, float]:
        """What `Rows.parameters` holds."""
        return {name: self.get_default(name) for name in self._settable}


def find_entry_points(path: list[str]) -> dict[str, list[tuple[EntryPoint, str]]]:
    """The recipes of the packages that lie on `path`: {name: [(entry point, package==version)]}. No code of them runs."""
    found: dict[str, list[tuple[EntryPoint, str]]] = {}
    seen: set[str] = set()
    for distribution in distributions(path=path):
        points = [point for point in distribution.entry_points if point.group == GROUP]
        if not points or (package := _name_package(distribution)) in seen:
            continue
        seen.add(package)  # a folder may lie on the path twice
        for point in points:
            found.setdefault(point.name, []).append((point, package))
    return {name: found[name] for name in sorted(found) if _NAME.fullmatch(name)}


def _name_package(distribution: Distribution) -> str:
    return f"{distribution.metadata['Name']}=={distribution.version}"


def describe(recipe: Any) -> dict[str, Any]:
    """What the web process shows of a recipe, as JSON values, unchecked."""
    if not callable(getattr(recipe, "fit", None)):
        raise RecipeRefused("its entry point has no function fit(rows)")
    parameters = {str(name): dict(about) for name, about in getattr(recipe, "PARAMETERS", {}).items()}
    return {"inputs": [str(name) for name in getattr(recipe, "INPUTS", ())], "parameters": parameters}


def write_rows(folder: Path, prepared: Prepared, *, weighs_classes: bool) -> None:
    """The rows of the fit and the stop window as files. Those of the gate window stay where they are."""
    examples, scaler = prepared.examples, prepared.scaler
    split = examples.split
    arrays = {
        "features": examples.features[split.fit],
        "labels": prepared.labels[split.fit],
        "stop_features": examples.features[split.stop],
        "stop_labels": prepared.stop_labels,
        "mean": scaler.mean.astype(np.float32),
        "scale": scaler.scale.astype(np.float32),
        "class_weights": prepared.class_weights if weighs_classes else np.ones(3, np.float32),
    }
    for name in ROW_FILES:
        np.save(folder / f"{name}.npy", arrays[name])


def _read_input(name: Any) -> str:
    if not isinstance(name, str) or find_schema(name) is None:
        raise ValueError(f"there is no input {str(name)[:40]!r}; name relative72, raw72 or window64")
    return name


def _is_window(name: str) -> bool:
    schema = find_schema(name)
    return schema is not None and schema.is_window


def _read_parameter(name: Any, about: Mapping[str, Any]) -> Parameter:
    if (
        not isinstance(name, str)
        or not _NAME.fullmatch(name)
        or name in _TAKEN
        or name.startswith("dataset_")
    ):
        raise ValueError(f"a parameter cannot be called {str(name)[:40]!r}; choose another name")
    default, least, greatest = (about[key] for key in ("default", "least", "greatest"))
    for number in (default, least, greatest):
        if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) < 1e15:
            raise ValueError(f"{name}: default, least and greatest must be numbers")
    if not least <= default <= greatest:
        raise ValueError(f"{name}: its default {default:g} is not from {least:g} to {greatest:g}")
    meaning = str(about.get("meaning") or name)[:_MAX_MEANING]
    return Parameter(least, greatest, all(type(n) is int for n in (default, least, greatest)), meaning)
