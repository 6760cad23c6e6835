"""The two example recipes, installed with pip, fitted in the sandbox, and judged as graphs of somebody else."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gates.services import measuring
from mlcore.bundle.predictor import Predictor
from mlcore.data.simulate import simulate
from mlcore.evaluation.inspection import Inspection
from mlcore.fitting import fit
from mlcore.fitting.prepared import Trained
from tests.factories import bundle_folder
from tests.gates.conftest import BARS, DRIFT, SEED, SYSTEM, Desk
from tests.installed_recipes import install_example
from training.jobs import installed_recipes

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

# The settings of a quick fit; recurrence sees so few bars because each of its rows is measured alone.
EXAMPLES: dict[str, dict[str, Any]] = {
    "trees": {"trees": 30, "rows_share": 0.2},
    "recurrence": {"input": "window16", "units": 16, "epochs": 4, "batch_size": 256, "learning_rate": 0.003},
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("recipes")
    for name in EXAMPLES:
        install_example(name, base / "packages", base)
    return base / "packages"


@pytest.fixture(autouse=True)
def _installed(settings: Any, packages: Path) -> Iterator[None]:
    settings.RECIPES_DIR = packages
    installed_recipes.forget()
    yield
    installed_recipes.forget()


def fitted(name: str, **changes: Any) -> Trained:
    recipe = installed_recipes.find_recipe(name)
    assert recipe is not None
    recipe = replace(recipe, line=f"own_{name}").with_parameters(**{**EXAMPLES[name], **changes})
    prepared = fit.prepare(simulate("BTC", BARS, DRIFT, SEED), recipe)
    return installed_recipes.fit(recipe, prepared, seed=3, seconds=120, on_look=lambda: None)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.long
def test_an_example_is_learned_measured_by_row_and_judged(name: str, desk: Desk, tmp_path: Path) -> None:
    trained = fitted(name)
    assert trained.epochs[0].validation_accuracy > trained.prepared.majority_share + 0.03
    bundle = desk.bundle(trained)
    folder = bundle_folder(bundle, tmp_path / "bundle")
    inspection = Inspection(folder, bundle.digest)
    assert inspection.is_written_elsewhere and not inspection.is_own_graph
    document = inspection.bundle.manifest.document if inspection.bundle else {}
    assert document["recipe"] == {"name": name, "package": f"crpbot-recipe-{name}==0.1.0"}
    assert document["parameters"]["settings"].items() >= EXAMPLES[name].items()
    gate = trained.prepared.examples.split.gate
    rows = np.ascontiguousarray(trained.prepared.examples.features[gate][:20])
    predictor = Predictor(folder)
    assert np.abs(predictor.logits(rows) - predictor.logits_by_row(rows)).max() < 1e-4

    diagnosis = measuring.diagnose_here(bundle, desk.dataset, actor=SYSTEM, worker_name="gates@test")
    found = {result.gate: result for result in diagnosis.results.all()}
    assert "error" not in {result.verdict for result in found.values()}
    assert ("scaler.json" in (trained.payload or {})) == (name == "recurrence")  # trees need none
    if name == "trees":
        assert {result.verdict for result in found.values() if result.is_required} == {"passed"}
    facts = ("bundle", "scaler", "finite_weights", "single_sample", "schema", "reload", "window", "lookahead")
    assert {gate: found[gate].verdict for gate in facts} == dict.fromkeys(facts, "passed")


@pytest.mark.long
def test_the_same_seed_gives_the_same_files() -> None:
    few = {"trees": 3, "rows_share": 0.1}
    first, second = fitted("trees", **few), fitted("trees", **few)
    assert first.payload and first.payload == second.payload
