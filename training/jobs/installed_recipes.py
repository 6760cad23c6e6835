"""Recipes of packages that an administrator installed: which there are here, and fitting one in the sandbox.

Nothing of a package is imported by the service. Its description and its fit are run in the sandbox, and what comes out is
checked like a file from outside.
"""

import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

from django.conf import settings

from common.errors import Conflict, InvalidInput, Unavailable
from mlcore.bundle import graph_limits
from mlcore.bundle.format import MODEL_FILE, SCALER_FILE, WEIGHTS_FILE
from mlcore.bundle.graph_limits import MAX_MODEL_BYTES
from mlcore.errors import MlcoreError
from mlcore.fitting.checkpoint import EpochReport
from mlcore.fitting.installed import (
    GRAPH_FILE,
    InstalledRecipe,
    RecipeRefused,
    find_entry_points,
    write_rows,
)
from mlcore.fitting.prepared import Prepared, Trained
from training.jobs import sandbox

PRIVATE_BYTES = 4 * 2**30
"""Memory limit of the process that fits a recipe."""
OUTPUT_BYTES = 512 * 2**20
RETRY_SECONDS = 300.0
"""After this a recipe whose process was killed or late is described again."""
_MAX_FILE_BYTES = 128 * 2**20
_MAX_ANSWER_BYTES = 256 * 1024
_MODULE = "mlcore.importers.installed_recipe"
_FIGURES = ("train_loss", "validation_loss", "validation_accuracy")


_described: tuple[float, dict[str, dict[str, Any]]] | None = None


class RecipeFailed(Conflict):
    """A recipe of a package is missing here, or did not give a model."""

    title = "Recipe failed"


@cache
def list_packages() -> dict[str, tuple[str, ...]]:
    """The packages that provide each recipe, {name: (package==version, …)}, as they were when this process asked first."""
    path = [*sys.path, str(settings.RECIPES_DIR)]
    return {name: tuple(package for _, package in points) for name, points in find_entry_points(path).items()}


def find_recipe(name: str) -> InstalledRecipe | None:
    """The recipe of that name; None if no package here has one.

    Raises InvalidInput for one that two packages have, or that is not described well.
    """
    packages = list_packages().get(name, ())
    if not packages:
        return None
    if len(packages) > 1:
        raise InvalidInput(
            f"The recipe {name} is in {' and in '.join(packages)}: uninstall all but one.", field="recipe"
        )
    found = _describe_all().get(name) or {"problem": "the package was changed; restart the service"}
    if "problem" in found:
        raise InvalidInput(
            f"The recipe {name} of {packages[0]} cannot be loaded: {found['problem']}", field="recipe"
        )
    try:
        return InstalledRecipe.parse(name, packages[0], found)
    except RecipeRefused as refused:
        raise InvalidInput(f"{str(refused)[:1].upper()}{str(refused)[1:]}.", field="recipe") from refused


def require_recipe(name: str, package: str) -> InstalledRecipe:
    """The recipe that a run was launched with. Raises RecipeFailed, which says what to install."""
    here = list_packages().get(name, ())
    if package not in here:
        found = f"it has {' and '.join(here)}" if here else "it is not installed"
        raise RecipeFailed(
            f"This run needs the recipe {name} of {package}, and on this worker {found}. Install {package} in the folder"
            " CRPBOT_RECIPES_DIR of every worker, restart them, and launch the run again (docs/models.md, Own recipes)."
        )
    recipe = find_recipe(name)
    assert recipe is not None
    return recipe


def forget() -> None:
    """Look again which recipes there are."""
    global _described
    list_packages.cache_clear()
    _described = None


def fit(
    recipe: InstalledRecipe, prepared: Prepared, *, seed: int, seconds: float, on_look: Callable[[], None]
) -> Trained:
    """Fit in the sandbox, on the CPU, for at most `seconds`, and read the graph in a second one without the package.

    `on_look` is called meanwhile, and may raise to stop it.
    Raises RecipeFailed, sandbox.ProcessTimedOut, and Unavailable where the process was killed.
    """
    start = perf_counter()
    request = {
        "recipe": recipe.name,
        "package": recipe.package,
        "schema": recipe.schema,
        "parameters": recipe.fit_parameters,
        "seed": seed,
    }

    def run(do: str, folder: Path, packages: Path | None) -> dict[str, Any]:
        write_rows(folder, prepared, weighs_classes=recipe.weighs_classes)
        (folder / "request.json").write_text(json.dumps(request))
        left = max(1.0, seconds - (perf_counter() - start))
        return _run(folder, do, "--request", "request.json", packages=packages, seconds=left, on_look=on_look)

    try:
        with _make_folder("fitting-") as folder:
            run("fit", folder, Path(settings.RECIPES_DIR))
            graph = sandbox.read_output(folder / GRAPH_FILE, MAX_MODEL_BYTES)
        with _make_folder("finishing-") as folder:
            (folder / GRAPH_FILE).write_bytes(graph)
            figures = _read_figures(run("finish", folder, None))
            payload = _read_payload(folder)
    except sandbox.ProcessFailed as failure:
        raise RecipeFailed(f"The recipe {recipe.name} failed: its process {failure}.") from failure
    except MlcoreError as refused:
        raise RecipeFailed(f"The recipe {recipe.name} gave no model: {refused}.") from refused
    took = perf_counter() - start
    rows = len(prepared.labels[prepared.examples.split.fit])
    report = EpochReport(
        number=1,
        epochs=1,
        **figures,
        seconds=took,
        rows_per_second=rows * (recipe.epochs or 1) / took,
        is_best=True,
    )
    return Trained({}, prepared, recipe, seed, [report], best_epoch=1, device="cpu", payload=payload)


def _describe_all() -> dict[str, dict[str, Any]]:
    """What each recipe here says of itself. Raises SandboxBusy, and then asks again the next time.

    An answer is kept, but for RETRY_SECONDS only where a process was killed or late: the machine may have been the reason.
    """
    global _described
    if _described is not None:
        asked_at, known = _described
        is_final = not any(found.get("may_pass") for found in known.values())
        if is_final or monotonic() - asked_at < RETRY_SECONDS:
            return known
    known = _describe_together()
    _described = monotonic(), known
    return known


def _describe_together() -> dict[str, dict[str, Any]]:
    """They are loaded in one process, for speed. Where that fails, each has one of its own, so that one hides no other."""
    try:
        return _describe()
    except sandbox.SandboxBusy:
        raise
    except (sandbox.ProcessFailed, sandbox.ProcessTimedOut, Unavailable):
        return {name: _describe_one(name) for name in list_packages()}


def _describe_one(name: str) -> dict[str, Any]:
    try:
        return _describe("--recipe", name)[name]
    except KeyError:
        return {"problem": "its process named no such recipe"}
    except sandbox.SandboxBusy:
        raise
    except sandbox.ProcessTimedOut as late:
        return {"problem": f"its process {late}", "may_pass": True}
    except sandbox.ProcessFailed as failure:
        return {"problem": f"its process {failure}"}
    except Unavailable as killed:
        return {"problem": killed.message, "may_pass": True}


def _describe(*arguments: str) -> dict[str, dict[str, Any]]:
    """Raises ProcessFailed, ProcessTimedOut, and Unavailable where the process was killed."""
    with _make_folder("describing-") as folder:
        answer = _run(
            folder,
            "describe",
            *arguments,
            packages=Path(settings.RECIPES_DIR),
            seconds=settings.IMPORT_TIME_LIMIT_SECONDS,
        )
    recipes = answer.get("recipes")
    if not isinstance(recipes, dict) or not all(isinstance(found, dict) for found in recipes.values()):
        raise sandbox.ProcessFailed("left no usable answer")
    return recipes


@contextmanager
def _make_folder(prefix: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        yield Path(name)


def _run(
    folder: Path,
    do: str,
    *arguments: str,
    packages: Path | None,
    seconds: float,
    on_look: Callable[[], None] | None = None,
) -> dict[str, Any]:
    try:
        sandbox.run_module(
            _MODULE,
            [do, "--packages", str(packages or ""), "--answer", "answer.json", *arguments],
            folder=folder,
            seconds=seconds,
            private_bytes=PRIVATE_BYTES,
            output_bytes=OUTPUT_BYTES,
            readable=packages,
            on_look=on_look,
        )
    except sandbox.ProcessKilled as killed:
        raise Unavailable(f"The process of a recipe was {killed}: check the machine's memory.") from killed
    try:
        answer = json.loads(sandbox.read_output(folder / "answer.json", _MAX_ANSWER_BYTES))
    except (ValueError, RecursionError) as error:
        raise sandbox.ProcessFailed("left no usable answer") from error
    if not isinstance(answer, dict):
        raise sandbox.ProcessFailed("left no usable answer")
    if isinstance(refused := answer.get("refused"), str):
        printable = "".join(letter if letter.isprintable() else " " for letter in refused)
        raise RecipeRefused(printable[:1000])
    return answer


def _read_figures(answer: dict[str, Any]) -> dict[str, float]:
    figures = answer.get("figures")
    if not isinstance(figures, dict) or set(figures) != set(_FIGURES):
        raise sandbox.ProcessFailed("left no figures")
    if not all(isinstance(value, float) and math.isfinite(value) for value in figures.values()):
        raise sandbox.ProcessFailed("left figures that are no finite numbers")
    return figures


def _read_payload(folder: Path) -> dict[str, bytes]:
    """The files of the bundle. Raises BundleRefused for a graph that is not taken."""
    names = [MODEL_FILE, WEIGHTS_FILE, *([SCALER_FILE] if (folder / SCALER_FILE).exists() else [])]
    payload = {name: sandbox.read_output(folder / name, _MAX_FILE_BYTES) for name in names}
    graph_limits.check_graph(payload[MODEL_FILE])
    return payload
