"""A model from outside with a declaration: its gates recompute it, a false one is caught, and every gate can pass."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from django.core.management import call_command
from django.test import Client
from onnx import numpy_helper

from common.errors import InvalidInput
from gates.models import Diagnosis
from gates.services import measuring
from mlcore.bundle.onnx_graph import build_model
from mlcore.evaluation.provenance import compute_smoothed_loss
from tests import factories
from tests.gates.conftest import BARS, DRIFT, SEED, SYSTEM, Desk, trained
from tests.long_tests import long_except
from training.models import Dataset
from training.services import datasets, imported_models

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

Change = Callable[[dict[str, Any]], object]


def trained_elsewhere(dataset: Dataset, *, line: str = "v5") -> tuple[bytes, dict[str, Any]]:
    """A model of relative72 as an ONNX file, and its true declaration; that of v5 has its scaler in its weights."""
    made = trained(line)
    prepared, scaler = made.prepared, made.prepared.scaler
    weights, needs_scaler = dict(made.weights), line != "v5"
    if not needs_scaler:
        weights["coef.bias"] = weights["coef.bias"] - weights["coef.weight"] @ (scaler.mean / scaler.scale)
        weights["coef.weight"] = weights["coef.weight"] / scaler.scale
        weights = {name: array.astype(np.float32) for name, array in weights.items()}
    data = build_model(weights, scaler if needs_scaler else None)
    examples, true = prepared.examples, prepared.stop_labels
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"features": examples.features[examples.split.stop]})
    declaration = {
        "dataset": dataset.digest,
        "labels": {"kind": "terciles", "horizon": 8, "cut": None, "cuts": list(prepared.cuts)},
        "split": {"fit_percent": 70, "stop_percent": 15},
        "windows": examples.windows_with_digests(),
        "stop": {
            "loss": compute_smoothed_loss(logits, true, np.ones(3), 0.0),
            "accuracy": float((logits.argmax(axis=1) == true).mean()),
            "rows": len(true),
        },
        **({} if needs_scaler else {"scaler": "none"}),
    }
    return data, declaration


def import_(desk: Desk, data: bytes, declaration: Mapping[str, Any]) -> imported_models.ImportedModel:
    return imported_models.import_model(
        desk.dataset.coin,
        data,
        name="linear.onnx",
        line="v7_fixed",
        schema="relative72",
        simulated=True,
        declaration=declaration,
        actor=factories.OPERATOR,
    )


def diagnose(imported: imported_models.ImportedModel, dataset: Dataset) -> dict[str, Any]:
    diagnosis: Diagnosis = measuring.diagnose_here(
        imported.bundle, dataset, actor=SYSTEM, worker_name="gates@test"
    )
    return {result.gate: result for result in diagnosis.results.all()}


def later_market(desk: Desk) -> Dataset:
    """A market that was made after the import."""
    return datasets.simulate_candles(
        desk.dataset.coin, bars=BARS, drift=DRIFT, seed=SEED + 1, actor=SYSTEM
    ).dataset


def test_a_true_declaration_lets_every_required_gate_pass(desk: Desk) -> None:
    imported = import_(desk, *trained_elsewhere(desk.dataset, line="v7_fixed"))
    assert imported.bundle.dataset == desk.dataset
    found = diagnose(imported, later_market(desk))
    against = {
        g: (r.verdict, r.sentence) for g, r in found.items() if r.is_required and r.verdict != "passed"
    }
    assert against == {}


def test_a_model_that_needs_no_scaler_is_judged_without_one(desk: Desk) -> None:
    found = diagnose(import_(desk, *trained_elsewhere(desk.dataset)), later_market(desk))
    assert {found[gate].verdict for gate in ("scaler", "schema", "reload", "window", "candles")} == {"passed"}
    assert found["scaler"].observed.startswith("needs none, as declared; loss ")
    assert "error" not in {result.verdict for result in found.values()}


def test_what_a_tracker_recorded_is_kept_and_no_gate_reads_it(desk: Desk, client: Client) -> None:
    data, declaration = trained_elsewhere(desk.dataset)
    record = {
        "tracker": "MLflow",
        "id": "4f0c",
        "name": "calm-bird",
        "parameters": {"trees": "<b>60</b>"},
        "metrics": {"accuracy": 0.99},
    }
    plain, recorded = (
        import_(desk, data, document) for document in (declaration, {**declaration, "run": record})
    )
    market = later_market(desk)
    found = [
        {gate: (str(result.verdict), result.sentence) for gate, result in diagnose(each, market).items()}
        for each in (plain, recorded)
    ]
    for verdicts in found:
        del verdicts["latency"], verdicts["attempts"], verdicts["lead"]  # the second is another attempt
    assert found[0] == found[1]
    assert (plain.bundle.tracked_run, recorded.bundle.tracked_run) == (None, record)
    client.force_login(factories.person("victor", "viewer"))
    shown = client.get("/bundles/").content.decode()
    assert "MLflow run calm-bird" in shown and "&lt;b&gt;60&lt;/b&gt;" in shown and "0.99" in shown


def test_known_candles_cannot_show_that_it_has_not_seen_them(desk: Desk) -> None:
    found = diagnose(import_(desk, *trained_elsewhere(desk.dataset)), desk.dataset)
    assert found["window"].verdict == "inconclusive"
    assert "Measure it on candles that it cannot have seen" in found["window"].sentence


FALSE: dict[str, tuple[Change, str]] = {
    "a better loss": (lambda d: d["stop"].update(loss=d["stop"]["loss"] - 0.05), "reload"),
    "a better accuracy": (lambda d: d["stop"].update(accuracy=d["stop"]["accuracy"] + 0.05), "reload"),
    "another number of rows": (lambda d: d["stop"].update(rows=d["stop"]["rows"] - 1), "reload"),
    "other cuts": (lambda d: d["labels"].update(cuts=[-0.1, 0.1]), "reload"),
    "another horizon": (lambda d: d["labels"].update(horizon=4), "window"),
    "another split": (lambda d: d["split"].update(fit_percent=60), "window"),
    "a shifted window": (
        lambda d: d["windows"]["fit"].update(first_at=d["windows"]["stop"]["first_at"]),
        "window",
    ),
    "a swapped window": (
        lambda d: d["windows"].update(fit=d["windows"]["gate"], gate=d["windows"]["fit"]),
        "window",
    ),
    "other candles in a window": (
        lambda d: d["windows"]["stop"].update(digest="sha256:" + "0" * 64),
        "window",
    ),
}


@pytest.mark.parametrize(
    "name", long_except(FALSE, lambda name: name in ("a better loss", "a swapped window"))
)
def test_a_false_declaration_is_caught_by_the_gate_for_it(name: str, desk: Desk) -> None:
    change, gate = FALSE[name]
    data, declaration = trained_elsewhere(desk.dataset)
    change(declaration)
    found = diagnose(import_(desk, data, declaration), later_market(desk))
    assert found[gate].verdict in ("failed", "error"), found[gate].sentence


def test_a_graph_that_reads_its_columns_in_another_order_is_caught(desk: Desk) -> None:
    data, declaration = trained_elsewhere(desk.dataset)
    model = onnx.load_model_from_string(data)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "coef.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[:, ::-1].copy(), "coef.weight"))
    found = diagnose(import_(desk, bytes(model.SerializeToString()), declaration), later_market(desk))
    assert found["reload"].verdict == "failed"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("stop"), r"lacks stop\.accuracy, stop\.loss, stop\.rows|lacks stop"),
        (lambda d: d.update(dataset="sha256:" + "0" * 64), "import the candles of its training first"),
    ],
    ids=["an entry missing", "another dataset"],
)
def test_a_declaration_that_does_not_fit_stores_nothing(change: Change, says: str, desk: Desk) -> None:
    data, declaration = trained_elsewhere(desk.dataset)
    change(declaration)
    with pytest.raises(InvalidInput, match=says) as refused:
        import_(desk, data, declaration)
    assert refused.value.field == "declaration"


def test_a_declaration_of_no_scaler_is_refused_for_a_graph_with_one(desk: Desk) -> None:
    data, declaration = trained_elsewhere(desk.dataset, line="v7_fixed")
    with pytest.raises(InvalidInput, match="needs no scaler, and its graph begins with one"):
        import_(desk, data, {**declaration, "scaler": "none"})


def test_the_command_takes_a_declaration(
    desk: Desk, operator: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, declaration = trained_elsewhere(desk.dataset)
    (tmp_path / "m.onnx").write_bytes(data)
    (tmp_path / "d.json").write_text(json.dumps(declaration))
    call_command(
        "import_model", str(tmp_path / "m.onnx"), "--coin=BTC", "--line=v7_fixed", "--schema=relative72",
        "--simulated", f"--declaration={tmp_path / 'd.json'}", "--json", "--as", "olivia",
    )  # fmt: skip
    assert json.loads(capsys.readouterr().out)["dataset"] == desk.dataset.pk
