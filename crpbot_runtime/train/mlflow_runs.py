"""Models and verdicts between MLflow and the service, by the caller's own `MlflowClient`: nothing here imports MLflow."""

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx

from crpbot_runtime.errors import FileRefused, Misconfigured

MAX_ENTRIES, MAX_TEXT = 200, 500
"""Of parameters, and of metrics; letters of a value. What is longer is cut."""
TAG = "crpbot"
GRAPH_FILE, MODEL_FOLDER = "model.onnx", "model"
EXPERIMENT = "crpbot releases"
MODEL = {
    "flavors": {
        "onnx": {"data": GRAPH_FILE, "providers": ["CPUExecutionProvider"]},
        "python_function": {"loader_module": "mlflow.onnx", "data": GRAPH_FILE},
    }
}
"""An MLmodel: MLflow loads the version as an ONNX model."""


def read_run(client: Any, run_id: str, model: str) -> tuple[bytes, dict[str, Any]]:
    """The ONNX file of a run and its record: tracker, id, name, parameters and metrics as logged last.

    `model` is the path of an artifact of the run, or the name of its logged model: a file, or a folder with one ONNX file.
    Weights that MLflow keeps beside the graph are put into it. Raises Misconfigured for another number of files.
    """
    run = client.get_run(run_id)
    with tempfile.TemporaryDirectory(prefix="crpbot-mlflow-") as folder:
        graph = _read_graph(Path(client.download_artifacts(run_id, model, folder)), model, run_id)
    return graph, {
        "tracker": "MLflow",
        "id": run_id,
        "name": str(run.info.run_name or "")[:MAX_TEXT],
        "parameters": _take({name: str(value)[:MAX_TEXT] for name, value in run.data.params.items()}),
        "metrics": _take({name: _describe_number(value) for name, value in run.data.metrics.items()}),
    }


def write_release(
    client: Any, release: Mapping[str, Any], download: Callable[[Mapping[str, Any]], bytes], *, name: str
) -> dict[str, str]:
    """A model version for each coin that has a bundle, in the registered model `name`-coin; returns the versions by coin.

    `download` gives a file that the service lists. Each version is a run with the bundle's files, the gates' figures as
    metrics, and the verdict as tags of the run and of the version.
    """
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
    return {
        coin["coin"]: _write_coin(client, experiment, release, coin, download, f"{name}-{coin['coin']}")
        for coin in release["coins"]
        if coin["bundle"]
    }


def _read_graph(path: Path, model: str, run_id: str) -> bytes:
    found = [path] if path.is_file() else sorted(path.rglob("*.onnx"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:5]) or "none"
        raise Misconfigured(
            f"{model!r} of run {run_id} holds {len(found)} ONNX files ({names}): name one by model=, and log a network as"
            " ONNX, with mlflow.onnx.log_model or log_artifact"
        )
    return bytes(onnx.load(str(found[0])).SerializeToString())


def _take(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name[:MAX_TEXT]: values[name] for name in sorted(values)[:MAX_ENTRIES]}


def _describe_number(value: float) -> float | str:
    """JSON has no word for what is not finite."""
    return float(value) if math.isfinite(value) else str(value)


def _write_coin(
    client: Any,
    experiment: str,
    release: Mapping[str, Any],
    coin: Mapping[str, Any],
    download: Callable[[Mapping[str, Any]], bytes],
    name: str,
) -> str:
    tags = _describe_verdict(release, coin)
    run = client.create_run(experiment, run_name=f"release {release['id']} {coin['coin']}", tags=tags)
    run_id = run.info.run_id
    for parameter, value in {**release["parameters"], "seed": release["seed"]}.items():
        client.log_param(run_id, parameter, value)
    for gate in coin["gates"]:
        if gate["figure"] is not None:
            client.log_metric(run_id, f"gate.{gate['gate']}", gate["figure"])
    with tempfile.TemporaryDirectory(prefix="crpbot-mlflow-") as folder:
        for file in coin["files"]:
            _write_file(Path(folder), file, download(file))
        (Path(folder) / "MLmodel").write_text(json.dumps(MODEL))
        client.log_artifacts(run_id, folder, MODEL_FOLDER)
    client.set_terminated(run_id)
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name)
    source = f"{run.info.artifact_uri}/{MODEL_FOLDER}"
    return str(client.create_model_version(name, source, run_id, tags=tags).version)


def _write_file(folder: Path, file: Mapping[str, Any], data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != file["sha256"]:
        raise FileRefused(f"{file['name']} came with another digest than the service lists")
    (folder / Path(file["name"]).name).write_bytes(data)


def _describe_verdict(release: Mapping[str, Any], coin: Mapping[str, Any]) -> dict[str, str]:
    """As it is when this is written: a release that is approved later is exported again."""
    facts = {
        "release": release["id"],
        "line": release["line"],
        "state": release["state"],
        "reason": release["reason"],
        "policy": release["policy"],
        "is_simulated": release["is_simulated"],
        "coin": coin["coin"],
        "bundle": coin["bundle"],
        "dataset": coin["dataset"],
        "verdict": coin["verdict"] or "not measured",
    }
    gates = {f"gate.{gate['gate']}": f"{gate['verdict']}: {gate['observed']}" for gate in coin["gates"]}
    return {f"{TAG}.{name}": str(value)[:MAX_TEXT] for name, value in (facts | gates).items()}
