"""Faults in the bytes of a bundle: weights, scaler, graph, files."""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from safetensors.numpy import save

from mlcore.bundle import format as bundle_format
from mlcore.bundle import onnx_graph
from mlcore.bundle.format import MANIFEST_FILE, MODEL_FILE, SCALER_FILE, WEIGHTS_FILE, Layout
from mlcore.features import indicators
from mlcore.features.scaler import Scaler
from mlcore.importers.convert import Request, import_model
from tests.faults.bundle_factory import BundleFactory, Case


def logits_explode(factory: BundleFactory) -> Case:
    weights = factory.good.weights
    weights["fc4.weight"] *= 4_000
    return factory.rewrite(factory.good, weights=weights)


def logits_far_from_zero(factory: BundleFactory) -> Case:
    """The same on all three: no probability changes."""
    weights = factory.good.weights
    weights["fc4.bias"] += 30
    return factory.rewrite(factory.good, weights=weights)


def temperature_lost(factory: BundleFactory) -> Case:
    """Logits that were to be divided, and are not: right as often as before, far too sure, and still within ±10."""
    plain = factory.clear_market
    weights = plain.weights
    weights["fc4.weight"] -= weights["fc4.weight"].mean(axis=0)
    weights["fc4.bias"] -= weights["fc4.bias"].mean()
    logits = factory.compute_logits(plain, weights)
    lost = 19 / (logits.max() - logits.min())
    weights["fc4.weight"] *= lost
    weights["fc4.bias"] = lost * (weights["fc4.bias"] - (logits.max() + logits.min()) / 2)
    return factory.rewrite(plain, weights=weights)


def always_down(factory: BundleFactory) -> Case:
    weights = factory.good.weights
    weights["fc4.bias"] += np.array([8, 0, 0], np.float32)
    return factory.rewrite(factory.good, weights=weights)


def leans_down(factory: BundleFactory) -> Case:
    """Just enough to say one direction more often than the policy allows, and still right most of the time."""
    weights = factory.good.weights
    weights["fc4.bias"] += np.array([0.9, -0.1, 0], np.float32)
    return factory.rewrite(factory.good, weights=weights)


def constant(factory: BundleFactory) -> Case:
    weights = factory.good.weights
    weights["fc4.weight"] *= 0
    return factory.rewrite(factory.good, weights=weights)


def ups_and_downs_exchanged(factory: BundleFactory) -> Case:
    weights = factory.good.weights
    for name in ("fc4.weight", "fc4.bias"):
        weights[name] = weights[name][::-1].copy()
    return factory.rewrite(factory.good, weights=weights)


def a_layer_lost(factory: BundleFactory) -> Case:
    """As a renamed key leaves it when the loader is told not to mind."""
    weights = factory.good.weights
    random = np.random.default_rng(1)
    shape = weights["fc2.weight"].shape
    weights["fc2.weight"] = random.uniform(-0.06, 0.06, shape).astype(np.float32)
    return factory.rewrite(factory.good, weights=weights)


def batch_norm_forgotten(factory: BundleFactory) -> Case:
    """Buffers as a fresh network has them: mean 0, variance 1."""
    weights = factory.good.weights
    for layer in (1, 2, 3):
        weights[f"bn{layer}.running_mean"][:] = 0
        weights[f"bn{layer}.running_var"][:] = 1
    return factory.rewrite(factory.good, weights=weights)


def not_a_number_in(tensor: str, value: float = np.nan) -> Callable[[BundleFactory], Case]:
    def plant(factory: BundleFactory) -> Case:
        weights = factory.good.weights
        weights[tensor].reshape(-1)[0] = value
        return factory.rewrite(factory.good, weights=weights, reports=False)

    return plant


def infinite_variance(factory: BundleFactory) -> Case:
    """One channel whose variance overflowed: it says nothing any more, and every answer stays finite."""
    weights = factory.good.weights
    weights["bn1.running_var"][0] = np.inf
    return factory.rewrite(factory.good, weights=weights)


def scaler_missing(factory: BundleFactory) -> Case:
    files = {SCALER_FILE: None, MODEL_FILE: onnx_graph.build_model(factory.good.weights, None)}
    return factory.rewrite(factory.good, files=files)


def scaler_of_another_coin(factory: BundleFactory) -> Case:
    return factory.rewrite(factory.good, scaler=factory.other_coin.scaler)


def scaler_file_of_another_coin(factory: BundleFactory) -> Case:
    files = {MODEL_FILE: onnx_graph.build_model(factory.good.weights, factory.good.scaler)}
    return factory.rewrite(factory.good, scaler=factory.other_coin.scaler, files=files)


def imported_without_scaler(factory: BundleFactory) -> Case:
    """A checkpoint as such bots have on disk: the weights and the names of the features, and no scaler anywhere."""
    weights = {name: torch.from_numpy(array) for name, array in factory.good.weights.items()}
    checkpoint = io.BytesIO()
    torch.save({"model_state_dict": weights, "feature_columns": list(_columns())}, checkpoint)
    request = Request("BTC", "v6_enhanced", "relative72", Layout.RELU_BEFORE_BN, False, 3600, "faults")
    made, _ = import_model(checkpoint.getvalue(), request, factory.create_path())
    return replace(factory.good.case, folder=made.folder, digest=made.digest)


def model_of_another_coin(factory: BundleFactory) -> Case:
    """ETH's weights and scaler under a manifest that is BTC's: its coin, its candles, its windows, its classes."""
    good = factory.good
    mine = {name: good.document[name] for name in ("coin", "dataset", "windows", "labels", "training")}
    case = factory.rewrite(factory.other_coin, reports=False, **mine)
    return replace(good.case, folder=case.folder, digest=case.digest)


def scaler_file_rounded(factory: BundleFactory) -> Case:
    """Eight digits beside a graph that scales by all of them: the file is not the scaler that serves."""
    scaler = factory.good.scaler
    mean, scale = ([float(f"{value:.8g}") for value in values] for values in (scaler.mean, scaler.scale))
    figures = {"names": list(_columns()), "mean": mean, "scale": scale}
    return factory.rewrite(factory.good, files={SCALER_FILE: bundle_format.to_canonical_json(figures)})


def scaler_applied_twice(factory: BundleFactory) -> Case:
    model = onnx.load_model_from_string(onnx_graph.build_model(factory.good.weights, factory.good.scaler))
    again = [
        helper.make_node("Sub", ["scaled", onnx_graph.SCALER_MEAN], ["centred again"]),
        helper.make_node("Div", ["centred again", onnx_graph.SCALER_SCALE], ["scaled again"]),
    ]
    return factory.rewrite(factory.good, files={MODEL_FILE: _inserted(model, "scaled", again)})


def scaler_folded_in_twice(factory: BundleFactory) -> Case:
    """Once in the graph, and once more in the first layer."""
    return factory.rewrite(factory.good, weights=_folded(factory))


def scaler_folded_away(factory: BundleFactory) -> Case:
    """In the first layer instead of the graph: the same answers, and nobody can see by which scaler."""
    weights = _folded(factory)
    return factory.rewrite(
        factory.good, weights=weights, files={MODEL_FILE: onnx_graph.build_model(weights, None)}
    )


def _folded(factory: BundleFactory) -> dict[str, np.ndarray]:
    weights, scaler = factory.good.weights, factory.good.scaler
    wide = weights["fc1.weight"].astype(np.float64) / scaler.scale
    weights["fc1.bias"] = (weights["fc1.bias"] - wide @ scaler.mean).astype(np.float32)
    weights["fc1.weight"] = wide.astype(np.float32)
    return weights


def not_a_number_in_the_scaler(factory: BundleFactory) -> Case:
    mean = factory.good.scaler.mean.copy()
    mean[5] = np.nan
    broken = Scaler(mean, factory.good.scaler.scale)
    figures = {"names": list(_columns()), "mean": mean.tolist(), "scale": broken.scale.tolist()}
    files = {
        SCALER_FILE: json.dumps(figures).encode(),
        MODEL_FILE: onnx_graph.build_model(factory.good.weights, broken),
    }
    return factory.rewrite(factory.good, files=files, reports=False)


def scale_of_zero(factory: BundleFactory) -> Case:
    scale = factory.good.scaler.scale.copy()
    scale[5] = 0
    return factory.rewrite(factory.good, scaler=Scaler(factory.good.scaler.mean, scale), reports=False)


def features_in_alphabetical_order(factory: BundleFactory) -> Case:
    """Trained and scaled by columns that were sorted by name on the way, which the bot's are not."""
    order = np.argsort(_columns())
    weights = factory.good.weights
    weights["fc1.weight"] = weights["fc1.weight"][:, order].copy()
    scaler = Scaler(factory.good.scaler.mean[order], factory.good.scaler.scale[order])
    return factory.rewrite(factory.good, weights=weights, scaler=scaler)


def scaler_names_in_another_order(factory: BundleFactory) -> Case:
    scaler = factory.good.scaler
    figures = {"names": sorted(_columns()), "mean": scaler.mean.tolist(), "scale": scaler.scale.tolist()}
    return factory.rewrite(factory.good, files={SCALER_FILE: bundle_format.to_canonical_json(figures)})


def another_schema_digest(factory: BundleFactory) -> Case:
    schema = {**factory.good.document["schema"], "digest": "sha256:" + "0" * 64}
    return factory.rewrite(factory.good, reports=False, schema=schema)


def a_single_row_crashes(factory: BundleFactory) -> Case:
    """It reads the batch's second row, to no end but that there must be one."""
    nodes = [
        _constant("one", np.int64(1)),
        _constant("nothing", np.float32(0)),
        helper.make_node("Gather", ["scaled", "one"], ["second row"], axis=0),
        helper.make_node("Mul", ["second row", "nothing"], ["zeros"]),
        helper.make_node("Add", ["scaled", "zeros"], ["scaled all the same"]),
    ]
    model = onnx.load_model_from_string(onnx_graph.build_model(factory.good.weights, factory.good.scaler))
    return factory.rewrite(factory.good, files={MODEL_FILE: _inserted(model, "scaled", nodes)})


def batch_norm_skipped_for_one_row(factory: BundleFactory) -> Case:
    """As the original code does it: a batch of one goes past the last normalisation."""
    return factory.rewrite(factory.good, files=_choose_by_rows(factory, alone="relu3", batch="normal3"))


def batch_norm_skipped_in_a_batch(factory: BundleFactory) -> Case:
    """One row alone is answered as its training reported, and a batch goes past the last normalisation."""
    files = _choose_by_rows(factory, alone="normal3", batch="relu3")
    return factory.rewrite(factory.good, files=files, reports=False)


def _choose_by_rows(factory: BundleFactory, *, alone: str, batch: str) -> dict[str, bytes]:
    """The good graph, which reads one node for a row alone and another for more rows."""
    nodes = [
        _constant("first", np.int64(0)),
        _constant("one", np.int64(1)),
        helper.make_node("Shape", ["scaled"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["rows"], axis=0),
        helper.make_node("Equal", ["rows", "one"], ["is alone"]),
        helper.make_node("Where", ["is alone", alone, batch], ["perhaps normal"]),
    ]
    model = onnx.load_model_from_string(onnx_graph.build_model(factory.good.weights, factory.good.scaler))
    return {MODEL_FILE: _inserted(model, "normal3", nodes)}


def looks_ahead_through_its_batch(factory: BundleFactory) -> Case:
    """Each row is answered from the row behind it, which is a bar later: a bot that asks for one row has none."""
    nodes = [
        *(_constant(name, np.array([value])) for name, value in (("nought", 0), ("one", 1), ("end", 2**40))),
        helper.make_node("Slice", ["scaled", "one", "end", "nought"], ["later"]),
        helper.make_node("Slice", ["scaled", "nought", "one", "nought"], ["first"]),
        helper.make_node("Concat", ["later", "first"], ["moved"], axis=0),
    ]
    model = onnx.load_model_from_string(onnx_graph.build_model(factory.good.weights, factory.good.scaler))
    return factory.rewrite(factory.good, files={MODEL_FILE: _inserted(model, "scaled", nodes)})


def graph_of_other_weights(factory: BundleFactory) -> Case:
    """The graph is of the fallible export before; the weights file and the report are of the last."""
    weights = factory.good.weights
    random = np.random.default_rng(0)
    weights["fc4.weight"] += 0.01 * random.standard_normal(weights["fc4.weight"].shape).astype(np.float32)
    files = {MODEL_FILE: onnx_graph.build_model(weights, factory.good.scaler)}
    return factory.rewrite(factory.good, files=files)


def _constant(name: str, value: np.generic | np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value)))


def _inserted(model: onnx.ModelProto, after: str, nodes: list[onnx.NodeProto]) -> bytes:
    """The graph with `nodes` between the value `after` and its readers; the last node's output takes its place."""
    old = list(model.graph.node)
    at = next(i for i, node in enumerate(old) if after in node.output) + 1
    for node in old[at:]:
        node.input[:] = [nodes[-1].output[0] if name == after else name for name in node.input]
    del model.graph.node[:]
    model.graph.node.extend([*old[:at], *nodes, *old[at:]])
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def truncated(name: str) -> Callable[[BundleFactory], Case]:
    def plant(factory: BundleFactory) -> Case:
        case = factory.copy_files(factory.good)
        path = case.folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return case

    return plant


def one_bit_turned(factory: BundleFactory) -> Case:
    """The lowest bit of one weight in the graph: nothing that it does can tell."""
    case = factory.copy_files(factory.good)
    path = case.folder / MODEL_FILE
    data = bytearray(path.read_bytes())
    at = data.find(factory.good.weights["fc4.bias"].tobytes())
    assert at > 0
    data[at] ^= 1
    path.write_bytes(bytes(data))
    return case


def a_file_missing(factory: BundleFactory) -> Case:
    case = factory.copy_files(factory.good)
    (case.folder / WEIGHTS_FILE).unlink()
    return case


def graph_swapped_for_another_seeds(factory: BundleFactory) -> Case:
    case = factory.copy_files(factory.good)
    (case.folder / MODEL_FILE).write_bytes((factory.second_seed.bundle.folder / MODEL_FILE).read_bytes())
    return case


def bundle_swapped_for_another(factory: BundleFactory) -> Case:
    """A whole bundle, sound in itself, where another was asked for."""
    return replace(factory.second_seed.case, digest=factory.good.bundle.digest)


def manifest_edited(factory: BundleFactory) -> Case:
    """One field, and put in canonical form again: it reads well, and is not the manifest that was judged."""
    case = factory.copy_files(factory.good)
    path = case.folder / MANIFEST_FILE
    path.write_bytes(
        bundle_format.to_canonical_json({**json.loads(path.read_bytes()), "code_version": "reviewed"})
    )
    return case


def files_of_two_writings(factory: BundleFactory) -> Case:
    """Weights, graph and their entries of a second writing, under the digest of the first."""
    case = factory.copy_files(factory.good)
    weights = factory.second_seed.weights
    data = {WEIGHTS_FILE: save(weights), MODEL_FILE: onnx_graph.build_model(weights, factory.good.scaler)}
    document = json.loads((case.folder / MANIFEST_FILE).read_bytes())
    for name, content in data.items():
        (case.folder / name).write_bytes(content)
        document["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (case.folder / MANIFEST_FILE).write_bytes(bundle_format.to_canonical_json(document))
    return case


def _columns() -> tuple[str, ...]:
    return indicators.SCHEMAS["relative72"].columns
