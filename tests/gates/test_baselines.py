"""The V5 of the gate *skill*: fitted on the candidate's own candles and windows, the same everywhere."""

import json
from pathlib import Path
from typing import Any

import pytest

from gates import baselines
from gates import worker as runner
from gates.models import Diagnosis
from gates.services import measuring
from mlcore.data.simulate import simulate
from mlcore.fitting import fit
from mlcore.fitting.recipes import RECIPES
from tests.gates.conftest import BARS, DRIFT, SEED, SYSTEM, Desk, trained
from tests.long_tests import long_except
from training import artifact_store
from training.jobs import sandbox
from training.models import Bundle
from training.services import datasets

pytestmark = pytest.mark.slow

FIT, MEASURE = "mlcore.evaluation.v5", "mlcore.evaluation.measure"


@pytest.fixture
def kept_baselines(tmp_path: Path) -> Path:
    """None: whether one is fitted is what is tested."""
    folder = tmp_path / "kept_baselines"
    folder.mkdir()
    return folder


def diagnosed(desk: Desk, made: Bundle) -> Diagnosis:
    return measuring.diagnose_here(made, desk.dataset, actor=SYSTEM, worker_name="gates@test")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules that were run in the sandbox."""
    run, names = sandbox.run_module, list[str]()

    def note(module: str, *arguments: Any, **options: Any) -> None:
        names.append(module)
        run(module, *arguments, **options)

    monkeypatch.setattr(sandbox, "run_module", note)
    return names


def test_a_candidate_gets_the_same_figure_beside_any_other_v5(
    desk: Desk, modules: list[str], settings: Any
) -> None:
    settings.CODE_VERSION = "tests"  # that of the bundles below
    made = desk.bundle(trained("v7_fixed"))
    without_any = diagnosed(desk, made).document["skill"]

    (desk.folder / "store" / "baselines" / baselines.build_key(desk.dataset)).unlink()  # another installation
    recipe, fewer = RECIPES["v5"], simulate("BTC", BARS // 4, DRIFT, SEED)
    older = datasets.simulate_candles(
        desk.dataset.coin, bars=BARS // 4, drift=DRIFT, seed=SEED, actor=SYSTEM
    ).dataset
    Desk(desk.folder, older).bundle(fit.fit(fit.prepare(fewer, recipe), recipe, seed=1))
    beside_an_older_one = diagnosed(desk, made).document["skill"]
    assert modules == [FIT, MEASURE, FIT, MEASURE]

    desk.bundle(trained("v5"))  # trained here on the same candles: it is taken as it is
    (desk.folder / "store" / "baselines" / baselines.build_key(desk.dataset)).unlink()
    beside_a_newer_one = diagnosed(desk, made).document["skill"]
    assert modules[4:] == [MEASURE]
    assert without_any == beside_an_older_one == beside_a_newer_one
    assert without_any["baseline"]["fit"] == made_windows(made)["fit"]


def made_windows(made: Bundle) -> dict[str, Any]:
    windows: dict[str, Any] = json.loads(made.manifest)["windows"]
    return windows


@pytest.mark.long
def test_a_v5_is_fitted_once_for_the_same_candles(desk: Desk, modules: list[str]) -> None:
    lines = ("v7_fixed", "v6_enhanced", "v5")
    compared = [diagnosed(desk, desk.bundle(trained(line))).document["skill"]["baseline"] for line in lines]
    assert modules == [FIT, MEASURE, MEASURE, MEASURE]
    assert [found["is_itself"] for found in compared] == [False, False, True]
    assert len({found["digest"] for found in compared}) == len({str(found["fit"]) for found in compared}) == 1


@pytest.mark.parametrize(
    "damage", long_except([b"", b"PK\x03\x04 torn"], bool), ids=["an empty file", "a file cut off"]
)
def test_a_stored_v5_that_is_damaged_is_fitted_again(desk: Desk, modules: list[str], damage: bytes) -> None:
    artifact_store.store_baseline(baselines.build_key(desk.dataset), damage)
    diagnosis = diagnosed(desk, desk.bundle(trained("v7_fixed")))
    assert diagnosis.document["skill"]["baseline"]["problem"] is None
    assert modules == [FIT, MEASURE]
    assert baselines.load(desk.dataset, desk.folder / "loaded")


def test_a_v5_that_cannot_be_fitted_costs_only_the_gate_skill(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = sandbox.run_module

    def fail_to_fit(module: str, *arguments: Any, **options: Any) -> None:
        if module == FIT:
            raise sandbox.ProcessFailed("ended with status 2: v5: no memory is left")
        run(module, *arguments, **options)

    monkeypatch.setattr(sandbox, "run_module", fail_to_fit)
    diagnosis = diagnosed(desk, desk.bundle(trained("v7_fixed")))
    verdicts = {result.gate: result.verdict for result in diagnosis.results.filter(is_required=True)}
    assert {gate for gate, verdict in verdicts.items() if verdict != "passed"} == {"skill"}
    assert "V5 was not fitted: the measuring process ended with status 2: v5: no memory is left" in (
        diagnosis.results.get(gate="skill").sentence
    )


def test_figures_against_another_v5_than_the_given_one_are_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = runner._read_document

    def swap(path: Path) -> dict[str, Any]:
        document = read(path)
        document["skill"]["baseline"]["digest"] = "sha256:" + "0" * 64
        return document

    monkeypatch.setattr(runner, "_read_document", swap)
    diagnosis = diagnosed(desk, desk.bundle(trained("v7_fixed")))
    assert "the figures compare with another V5 than the one that was given" in diagnosis.measurement.failure
    assert diagnosis.verdict == "error"
