"""MLflow with a real server: a run comes in with parameters and figures, and a release goes out with its verdict."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks import environments, mlflow_registry
from crpbot_runtime.errors import Misconfigured
from crpbot_runtime.train import Gate, Rows
from mlcore.bundle.onnx_graph import build_model
from tests import factories
from tests.gates.conftest import SEED, trained
from tests.gates.notebooks import LINE, market, work
from training.models import Coin
from training.services import lines

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("committed"),
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore"),  # MLflow's own
]
NOTHING = "NOTHING is shown about the import from and the export to MLflow"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mlflow_registry.Registry]:
    python = environments.find_python("mlflow", mlflow_registry.PINS)
    if python is None:
        pytest.skip(f"`make mlflow` has not made MLflow's environment: {NOTHING}")
    folder = tmp_path_factory.mktemp("mlflow") / "state"
    with mlflow_registry.serve(python, folder, has_authentication=True, workers=1) as found:
        make_sign_in_cheap(folder / "auth.db")
        yield found


def make_sign_in_cheap(database: Path) -> None:
    """MLflow checks the password at every request. The rounds of its hash take half a second; here there is one."""
    hashed = hashlib.pbkdf2_hmac("sha256", mlflow_registry.PASSWORD.encode(), b"salt", 1).hex()
    with closing(sqlite3.connect(database)) as users, users:
        users.execute("UPDATE users SET password_hash = ?", [f"pbkdf2:sha256:1$salt${hashed}"])


@pytest.fixture
def tracker(server: mlflow_registry.Registry, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """MLflow's client, signed in at that server."""
    mlflow: ModuleType = pytest.importorskip("mlflow", reason=f"mlflow-skinny is not installed: {NOTHING}")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", mlflow_registry.USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", mlflow_registry.PASSWORD)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    mlflow.set_tracking_uri(server.url)
    return mlflow


@pytest.fixture
def rows(gate: Gate, one_coin: Coin) -> Rows:
    lines.create_line(LINE, actor=factories.OPERATOR, reason="models of the desk's notebooks")
    market(SEED)
    return gate.prepare(gate.datasets(coin="BTC")[0])


def log_run(mlflow: ModuleType, rows: Rows, folder: Path, *, as_model: bool) -> str:
    """A run as a quant's notebook leaves it, with its network as a logged model or as a plain artifact."""
    graph = build_model(trained("v7_fixed").weights, rows.scaler)
    with mlflow.start_run(run_name="calm-bird") as run:
        mlflow.log_params({"layers": 3, "comment": "x" * 900})
        mlflow.log_metric("stop_loss", 0.7)
        mlflow.log_metric("stop_loss", 0.6)
        mlflow.log_metric("odd", float("nan"))
        if as_model:
            mlflow.onnx.log_model(onnx.load_model_from_string(graph), name="model", pip_requirements=[])
        else:
            (folder / "network.onnx").write_bytes(graph)
            mlflow.log_artifact(str(folder / "network.onnx"), "model")
    return str(run.info.run_id)


@pytest.mark.parametrize("as_model", [True, False], ids=["a logged model", "an artifact"])
def test_a_run_comes_in_and_its_release_goes_out(
    gate: Gate, rows: Rows, tracker: ModuleType, tmp_path: Path, as_model: bool
) -> None:
    run_id = log_run(tracker, rows, tmp_path, as_model=as_model)
    client = tracker.MlflowClient()
    bundle = gate.import_mlflow_run(client, run_id, rows, line=LINE, has_scaler=True)
    assert bundle["tracked_run"] == {
        "tracker": "MLflow",
        "id": run_id,
        "name": "calm-bird",
        "parameters": {"comment": "x" * 500, "layers": "3"},
        "metrics": {"odd": "nan", "stop_loss": 0.6},
    }
    assert bundle["origin"].startswith(f"imported from mlflow-{run_id}.onnx")

    release = gate.launch(LINE, bundles={"BTC": bundle["digest"]}, datasets={"BTC": market(SEED + 1).pk})
    with pytest.raises(Misconfigured, match="has not settled"):
        gate.export_release(client, release)
    work(release["id"])
    settled = gate.wait(release, seconds=5)
    assert settled["state"] == "awaiting_approval", settled["reason"]
    first, second = (
        gate.export_release(client, settled, name="desk"),
        gate.export_release(client, settled, name="desk"),
    )
    assert int(second["BTC"]) == int(first["BTC"]) + 1
    assert_exported(tracker, settled, first["BTC"], tmp_path, rows)


def assert_exported(
    mlflow: ModuleType, settled: dict[str, Any], version: str, folder: Path, rows: Rows
) -> None:
    """The version holds the bundle's files and the verdict of every gate, and answers as the bundle does."""
    client = mlflow.MlflowClient()
    found = client.get_model_version("desk-BTC", version)
    (coin,) = (each for each in settled["coins"] if each["bundle"])
    assert found.tags["crpbot.verdict"] == "passed" and found.tags["crpbot.bundle"] == coin["bundle"]
    assert found.tags["crpbot.release"] == str(settled["id"])
    assert found.tags["crpbot.state"] == "awaiting_approval"
    gates = {name for name in found.tags if name.startswith("crpbot.gate.")}
    assert gates == {f"crpbot.gate.{gate['gate']}" for gate in coin["gates"]}
    assert found.tags["crpbot.gate.accuracy"].startswith("passed: ")
    run = client.get_run(found.run_id)
    assert run.data.metrics["gate.accuracy"] == pytest.approx(
        next(gate["figure"] for gate in coin["gates"] if gate["gate"] == "accuracy")
    )
    where = Path(
        mlflow.artifacts.download_artifacts(
            artifact_uri=f"models:/desk-BTC/{version}", dst_path=str(folder / "down")
        )
    )
    assert {path.name for path in where.iterdir()} >= {file["name"] for file in coin["files"]} | {"MLmodel"}
    session = onnxruntime.InferenceSession(where / "model.onnx", providers=["CPUExecutionProvider"])
    some = rows.stop.features[:5]
    model = mlflow.pyfunc.load_model(str(where))
    (answer,) = session.run(None, {"features": some})
    np.testing.assert_array_equal(model.predict({"features": some})["logits"], answer)


def test_what_mlflow_does_not_have_is_said(
    gate: Gate, rows: Rows, tracker: ModuleType, tmp_path: Path
) -> None:
    client, options = tracker.MlflowClient(), dict[str, Any](line=LINE, has_scaler=True)
    with pytest.raises(tracker.exceptions.MlflowException, match="0000 not found"):
        gate.import_mlflow_run(client, "0" * 32, rows, **options)
    with tracker.start_run() as run:
        (tmp_path / "notes.txt").write_text("no model")
        tracker.log_artifact(str(tmp_path / "notes.txt"), "model")
    with pytest.raises(Misconfigured, match=r"holds 0 ONNX files \(none\): name one by model="):
        gate.import_mlflow_run(client, run.info.run_id, rows, **options)
