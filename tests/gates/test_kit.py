"""The kit for notebooks with a real service: a model that was trained elsewhere comes through every gate."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crpbot_runtime.errors import FileRefused, NotAuthorised, RequestRejected
from crpbot_runtime.train import Gate, Rows
from deploy.models import Release
from deploy.releases import settle
from deploy.releases.coins import set_required
from gates import worker as gates_worker
from gates.models import Measurement
from mlcore.bundle.onnx_graph import build_model
from mlcore.fitting.recipes import RECIPES
from tests import factories
from tests.gates.conftest import BARS, DRIFT, SEED, SYSTEM, trained
from training.models import Bundle, Coin, Dataset
from training.services import datasets, lines

pytestmark = [pytest.mark.usefixtures("committed"), pytest.mark.slow]


@pytest.fixture
def known(settings: Any, tmp_path: Path) -> Dataset:
    """The candles of the training; bots trade one coin."""
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "training.atomic_storage.AtomicFileStorage",
            "OPTIONS": {"location": tmp_path / "store"},
        },
    }
    for coin in Coin.objects.exclude(symbol="BTC"):
        set_required(coin, False, actor=SYSTEM, reason="the desk trades one", is_confirmed=True)
    return market(SEED)


@pytest.fixture
def gate(known: Dataset, live_server: Any) -> Iterator[Gate]:
    with connect(live_server, "operator") as gate:
        yield gate


def connect(live_server: Any, scope: str) -> Gate:
    person = factories.person(f"with-{scope}", "operator" if scope == "operator" else "viewer")
    return Gate(live_server.url, factories.token(person, scope), timeout_s=30)


def market(seed: int) -> Dataset:
    coin = Coin.objects.get(symbol="BTC")
    return datasets.simulate_candles(coin, bars=BARS, drift=DRIFT, seed=seed, actor=SYSTEM)


def graph_of(rows: Rows) -> bytes:
    """A network that somebody fitted on these rows."""
    assert rows.schema.name == RECIPES["v7_fixed"].schema
    return build_model(trained("v7_fixed").weights, rows.scaler)


def work(release: dict[str, Any]) -> None:
    """What the workers do meanwhile."""
    settle.advance(Release.objects.get(pk=release["id"]))
    for measurement in Measurement.objects.all():
        gates_worker.run(measurement.pk, worker_name="gates@test")
    settle.advance(Release.objects.get(pk=release["id"]))


def test_a_model_of_a_notebook_passes_every_gate(gate: Gate, known: Dataset) -> None:
    lines.create_line("notebook", actor=factories.OPERATOR, reason="models of the desk's notebooks")
    (listed,) = gate.datasets(coin="BTC", verdict="passed")
    rows = gate.prepare(listed)
    bundle = gate.upload(rows, graph_of(rows), line="notebook", has_scaler=True)
    assert Bundle.objects.get().digest == bundle["digest"]
    assert (bundle["line"], bundle["dataset"]) == ("notebook", known.pk)
    newer = market(SEED + 1)
    release = gate.launch("notebook", bundles={"BTC": bundle["digest"]}, datasets={"BTC": newer.pk})
    work(release)
    settled = gate.wait(release, seconds=5)
    assert settled["state"] == "awaiting_approval", settled["reason"]
    assert settled["coins"][0]["verdict"] == "passed"


def test_what_cannot_be_is_refused_in_the_services_words(
    gate: Gate, known: Dataset, live_server: Any
) -> None:
    with pytest.raises(RequestRejected, match="There is no line 'mine'; choose v7_fixed"):
        gate.launch("mine")
    with pytest.raises(RequestRejected, match="no such field"):
        gate.launch("v7_fixed", momentum=3)
    with pytest.raises(RequestRejected, match="404"):
        gate.download({"id": 999, "digest": known.digest})
    with pytest.raises(FileRefused, match="other candles than its digest says"):
        gate.download({"id": known.pk, "digest": "sha256:" + "0" * 64})
    with connect(live_server, "bot") as bot, pytest.raises(NotAuthorised, match="a notebook needs the scope"):
        bot.launch("v7_fixed")


def test_a_release_that_does_not_settle_in_time_can_be_waited_for_again(gate: Gate) -> None:
    release = gate.launch("v7_fixed", epochs=2, datasets={"BTC": gate.datasets()[0]["id"]}, seed=4)
    assert release["parameters"] == {"epochs": 2}
    with pytest.raises(TimeoutError, match="wait again"):
        gate.wait(release, seconds=0.1)


def test_every_page_of_a_long_list_is_read(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crpbot_runtime.train.gate.PAGE_ROWS", 1)
    other = market(SEED + 5)
    assert [row["id"] for row in gate.datasets()] == [other.pk, other.pk - 1]
