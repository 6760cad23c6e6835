"""The kit for notebooks with a real service: a model that was trained elsewhere comes through every gate."""

from datetime import timedelta
from typing import Any

import pytest

from crpbot_runtime.errors import FileRefused, Misconfigured, NotAuthorised, RequestRejected
from crpbot_runtime.train import Gate, Rows
from gates.models import Measurement
from gates.policy import FULL_POLICY
from gates.services import policies
from mlcore.bundle.onnx_graph import build_model
from mlcore.fitting.recipes import RECIPES
from tests import factories
from tests.gates.conftest import SEED, connect, trained
from tests.gates.notebooks import LINE, market, work
from training.models import Bundle, Coin, Dataset
from training.services import lines

ANNA, ARTHUR = factories.actor("anna", "approver"), factories.actor("arthur", "approver")

pytestmark = [pytest.mark.usefixtures("committed"), pytest.mark.slow]


@pytest.fixture
def known(one_coin: Coin) -> Dataset:
    """The candles of the training."""
    return market(SEED)


def graph_of(rows: Rows) -> bytes:
    """A network that somebody fitted on these rows."""
    assert rows.schema.name == RECIPES["v7_fixed"].schema
    return build_model(trained("v7_fixed").weights, rows.scaler)


def test_a_model_of_a_notebook_passes_every_gate(gate: Gate, known: Dataset) -> None:
    lines.create_line(LINE, actor=factories.OPERATOR, reason="models of the desk's notebooks")
    (listed,) = gate.datasets(coin="BTC", verdict="passed")
    rows = gate.prepare(listed)
    checked = gate.check(rows, graph_of(rows), has_scaler=True)
    assert not {str(found.verdict) for found in checked.outcomes} & {"failed", "error"}, checked
    assert not Bundle.objects.exists() and not Measurement.objects.exists(), "nothing was sent"
    bundle = gate.upload(rows, graph_of(rows), line=LINE, has_scaler=True)
    assert Bundle.objects.get().digest == bundle["digest"]
    assert (bundle["line"], bundle["dataset"]) == (LINE, known.pk)
    newer = market(SEED + 1)
    release = gate.launch(LINE, bundles={"BTC": bundle["digest"]}, datasets={"BTC": newer.pk})
    work(release["id"])
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


def test_the_newest_dataset_after_a_model_is_waited_for(gate: Gate, known: Dataset) -> None:
    at = {"coin": "BTC", "interval_seconds": 3600, "is_simulated": True}
    before = {**at, "created_at": (known.created_at - timedelta(seconds=1)).isoformat()}
    assert gate.wait_for_dataset(before, seconds=0)["id"] == known.pk
    for after in ({**at, "created_at": known.created_at.isoformat()}, {**before, "interval_seconds": 60}):
        with pytest.raises(TimeoutError, match=r"no candles of BTC .* import later ones"):
            gate.wait_for_dataset(after, seconds=0)


def test_a_release_that_does_not_settle_in_time_can_be_waited_for_again(gate: Gate, known: Dataset) -> None:
    release = gate.launch("v7_fixed", epochs=2, datasets={"BTC": gate.datasets()[0]["id"]}, seed=4)
    assert release["parameters"] == {"epochs": 2}
    with pytest.raises(TimeoutError, match="wait again"):
        gate.wait(release, seconds=0.1)


def test_the_policy_in_force_and_drafts_are_fetched(gate: Gate) -> None:
    assert gate.policy()["document"] == FULL_POLICY
    draft = policies.propose_draft("real-markets", actor=ANNA, reason="a real market")
    assert gate.policy()["number"] == 2, "it is only proposed"
    policies.adopt_policy(draft, actor=ARTHUR, reason="agreed")
    assert gate.policy()["document"] == gate.policy("real-markets")["document"] == draft.document
    with pytest.raises(Misconfigured, match="no draft 'mine'; choose real-markets"):
        gate.policy("mine")


def test_every_page_of_a_long_list_is_read(
    gate: Gate, known: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crpbot_runtime.train.gate.PAGE_ROWS", 1)
    other = market(SEED + 5)
    assert [row["id"] for row in gate.datasets()] == [other.pk, other.pk - 1]
