"""The scripts of docs/examples against a real service: released on a simulated market, refused on real candles."""

import html
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from django.db.models import QuerySet
from django.test import Client

from crpbot_runtime import Client as Bot
from crpbot_runtime.train import Gate
from deploy.models import Release
from deploy.pointer import pointer
from deploy.releases import decide
from deploy.rules import ReleaseState
from deploy.serving import keys
from mlcore.bundle.predictor import Predictor, softmax
from mlcore.data.simulate import simulate
from mlcore.features.indicators import compute_latest_at
from tests import factories, scenarios
from tests.gates.conftest import BARS, DRIFT, SEED
from tests.gates.notebooks import LINE, market, work
from tests.installed_recipes import install_example
from tests.processes import REPOSITORY, wait_until
from training.jobs import installed_recipes
from training.models import Bundle, Coin, Dataset
from training.services import datasets, lines

FOLDER = REPOSITORY / "docs" / "examples"
ANNA = factories.actor("anna", "approver")
REAL_CANDLES = os.environ.get("CRPBOT_CANDLES_DIR")
REAL_BARS = 9_000

pytestmark = [pytest.mark.usefixtures("committed"), pytest.mark.slow]
needs_real_candles = pytest.mark.skipif(
    not REAL_CANDLES, reason="CRPBOT_CANDLES_DIR is not set: NOTHING is shown of the examples on real candles"
)


@dataclass(frozen=True)
class Example:
    """A script, and what its main part says about the model."""

    name: str
    input: str
    has_scaler: bool
    needs: tuple[str, ...]

    def load(self) -> ModuleType:
        """Its functions. Skips where a package that it needs is not installed."""
        for package in self.needs:
            pytest.importorskip(package, reason=f"{package} is not installed: {self.name} is NOT tested")
        spec = importlib.util.spec_from_file_location(self.name, FOLDER / f"{self.name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


EXAMPLES = [
    Example("lightgbm_features", "relative72", False, ("lightgbm", "onnxmltools")),
    Example("torch_windows", "window32", True, ("torch",)),
    Example("sklearn_own_features", "window64", False, ("skl2onnx",)),
]
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)


def test_these_are_all_scripts() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {example.name for example in EXAMPLES}


def test_the_page_names_each_script() -> None:
    page = (REPOSITORY / "docs" / "notebooks.md").read_text()
    for example in EXAMPLES:
        assert f"docs/examples/{example.name}.py" in page and example.input in page


@each_example
@pytest.mark.long
def test_a_script_is_released_on_a_simulated_market(
    example: Example, one_coin: Coin, live_server: Any, client: Client, tmp_path: Path
) -> None:
    """Fitted on one market and judged on another, under the full policy; then a bot predicts with it."""
    example.load()
    scenarios.service_in_use()
    lines.create_line(LINE, actor=factories.OPERATOR, reason="models of the desk's notebooks")
    market(SEED)
    said = run_script(example, live_server, tmp_path / "script.log")
    assert "passed on the stop window" in said, said
    release = Release.objects.select_related("status").latest("pk")
    assert f"release {release.pk}: awaiting_approval." in said
    assert_shown(release, client, "awaiting")
    assert_a_bot_predicts(release, live_server, tmp_path / "cache", SEED + 1)


@dataclass(frozen=True)
class Own:
    """An example of an own recipe, on a market and with parameters that teach it enough."""

    recipe: str
    bars: int
    drift: float
    parameters: dict[str, float]


TREES = Own("trees", BARS, DRIFT, {"trees": 30, "rows_share": 0.2})
RECURRENCE = Own("recurrence", 30_000, 1.5, {"epochs": 14, "learning_rate": 0.002})


@pytest.fixture
def with_recipe(settings: Any, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Installs an example, and makes a line of it."""
    settings.RECIPES_DIR, settings.LEASE_SECONDS = tmp_path / "packages", 600.0

    def install(recipe: str) -> None:
        install_example(recipe, settings.RECIPES_DIR, tmp_path)
        installed_recipes.forget()
        lines.create_line(LINE, recipe=recipe, actor=factories.OPERATOR, reason="to compare with V7")

    yield install
    installed_recipes.forget()


# A minute and a half of fitting, so not a part of `make long`.
@pytest.mark.parametrize(
    "own", [TREES, pytest.param(RECURRENCE, marks=pytest.mark.soak)], ids=lambda own: own.recipe
)
@pytest.mark.long
def test_an_own_recipe_is_released_on_a_simulated_market(
    own: Own, gate: Gate, live_server: Any, client: Client, with_recipe: Callable[[str], None], tmp_path: Path
) -> None:
    """A worker trains it, so it is judged on the candles that it was fitted on."""
    scenarios.service_in_use()
    with_recipe(own.recipe)
    coin = Coin.objects.get(symbol="BTC")
    made = datasets.simulate_candles(
        coin, bars=own.bars, drift=own.drift, seed=SEED, actor=factories.OPERATOR
    ).dataset
    launched = gate.launch(LINE, datasets={"BTC": made.pk}, seed=3, parameters=own.parameters)
    release = work(launched["id"])
    settled = gate.wait(launched, seconds=5)
    assert settled["state"] == ReleaseState.AWAITING_APPROVAL, settled["reason"]
    assert_shown(release, client, "awaiting")
    assert_a_bot_predicts(release, live_server, tmp_path / "cache", SEED)


@needs_real_candles
@pytest.mark.parametrize("recipe", ["trees", "recurrence"])
@pytest.mark.long
def test_an_own_recipe_is_refused_on_real_candles(
    recipe: str, gate: Gate, client: Client, with_recipe: Callable[[str], None]
) -> None:
    with_recipe(recipe)
    imported = import_real_candles()
    few = {"trees": 5, "rows_share": 0.1} if recipe == "trees" else {"epochs": 1, "units": 8}
    launched = gate.launch(LINE, datasets={"BTC": imported.pk}, parameters=few)
    release = work(launched["id"])
    settled = gate.wait(launched, seconds=5)
    assert settled["state"] == ReleaseState.REJECTED and "accuracy failed: " in settled["reason"]
    assert_shown(release, client, "more than 65 % is required")


def run_script(example: Example, live_server: Any, log: Path) -> str:
    """What it prints, while the workers of the service do their part in this process."""
    person = factories.person("quant", "operator")
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "CRPBOT_URL": live_server.url,
        "CRPBOT_TOKEN": factories.token(person, "operator"),
    }
    command = [sys.executable, "-W", "ignore", str(FOLDER / f"{example.name}.py")]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environment) as script:
        try:
            wait_for_first(Bundle.objects.filter(line=LINE), script, log)
            market(SEED + 1)
            work(wait_for_first(Release.objects.filter(line=LINE), script, log).pk)
            assert script.wait(30) == 0, log.read_text()
        finally:
            script.kill()
    return log.read_text()


def import_real_candles() -> Dataset:
    frame = pl.read_csv(Path(str(REAL_CANDLES)) / "BTC.csv.gz").tail(REAL_BARS)
    coin = Coin.objects.get(symbol="BTC")
    content = frame.write_csv().encode()
    return datasets.import_candles(coin, content, name="BTC.csv", actor=factories.OPERATOR).dataset


def wait_for_first(rows: QuerySet[Any], script: "subprocess.Popen[bytes]", log: Path) -> Any:
    """The row that the script makes; fails with what the script said where it ends before."""
    wait_until(lambda: rows.exists() or script.poll() is not None, what="the script")
    assert script.poll() is None, log.read_text()
    return rows.get()


def assert_shown(release: Release, client: Client, text: str) -> str:
    """State and reason are the same by API and page; returns the page's text."""
    token = factories.token(factories.person("reader", "operator"), "operator")
    answer = client.get(f"/api/v1/releases/{release.pk}/", headers={"authorization": f"Bearer {token}"})
    found = json.loads(answer.content)
    assert (found["state"], found["reason"]) == (release.state, release.status.reason)
    client.force_login(factories.person("victor", "viewer"))
    shown = html.unescape(client.get(f"/releases/{release.pk}/").content.decode())
    assert text in shown.lower()
    return shown


def assert_a_bot_predicts(release: Release, live_server: Any, cache: Path, seed: int) -> None:
    """Once it is approved, from the service's own snapshot; its answer is that of the batch."""
    now = pointer.get_current()
    assert now is not None
    decide.approve(release, actor=ANNA, reason="a lead that lasts", revision=now.revision)
    candles = simulate("BTC", BARS, DRIFT, seed)
    token = factories.token(factories.person("bot", "viewer"), "bot")
    with Bot(
        live_server.url, token, keys.export_public(), cache, coins=["BTC"], max_age_s=float("inf")
    ) as bot:
        assert bot.refresh().problem is None
        ends = range(BARS - 5, BARS)
        decisions = [bot.predict("BTC", candles.head(end + 1)) for end in ends]
        assert {decision.release for decision in decisions} == {release.pk}
    made = Bundle.objects.get(line=LINE)
    predictor = Predictor(factories.bundle_folder(made, cache.parent / "bundle"))
    batch = softmax(predictor.logits(compute_latest_at(candles, np.array(ends), predictor.schema)))
    single = np.array([list(decision.probabilities.values()) for decision in decisions])
    np.testing.assert_allclose(single, batch, atol=1e-5)


@needs_real_candles
@each_example
@pytest.mark.long
def test_a_model_of_a_script_is_refused_on_real_candles(example: Example, gate: Gate, client: Client) -> None:
    """With reasons, by kit, API and page."""
    script = example.load()
    lines.create_line(LINE, actor=factories.OPERATOR, reason="models of the desk's notebooks")
    import_real_candles()
    (listed,) = gate.datasets(coin="BTC", verdict="passed")
    rows = gate.prepare(listed, input=example.input, horizon=script.HORIZON)
    graph = script.fit(rows, 8)
    checked = gate.check(rows, graph, has_scaler=example.has_scaler)
    assert checked.verdict == "failed" and any(
        "more than 65 % is required" in why for why in checked.problems
    )

    bundle = gate.upload(rows, graph, line=LINE, has_scaler=example.has_scaler)
    launched = gate.launch(LINE, bundles={"BTC": bundle["digest"]}, datasets={"BTC": listed["id"]})
    release = work(launched["id"])
    settled = gate.wait(launched, seconds=5)
    assert settled["state"] == ReleaseState.REJECTED
    assert "accuracy failed: " in settled["reason"] and "window inconclusive: " in settled["reason"]
    shown = assert_shown(release, client, "rejected")
    assert "nothing shows that its training kept to the declared windows" in shown
