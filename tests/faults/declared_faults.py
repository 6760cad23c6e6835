"""False declarations of models from outside, and graphs that are not what their true declaration lets one expect.

All share the bundle, the V5 and the candles of `BundleFactory.good`. Each is imported as the service imports it, with its
declaration, and judged on candles that it cannot have seen unless the fault is that it has.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import polars as pl
from onnx import helper

from mlcore.bundle import onnx_graph
from mlcore.bundle.format import MODEL_FILE
from mlcore.bundle.writer import write_bundle
from mlcore.data import candles
from mlcore.data.simulate import simulate
from mlcore.evaluation.provenance import compute_smoothed_loss
from mlcore.features import indicators, labels
from mlcore.features.examples import Examples, build_examples
from mlcore.features.labels import DEFAULT_LABEL, Label, LabelKind
from mlcore.features.splits import DEFAULT_SHARES, Shares
from mlcore.fitting.fit import fit, prepare
from mlcore.fitting.recipes import RECIPES
from mlcore.importers.convert import Request, import_model
from mlcore.quality.simulated import SimulatorSettings
from tests.faults import candle_faults
from tests.faults.bundle_factory import BARS, NOISE, SEED, BundleFactory, Case
from tests.faults.candle_facts import CandleFacts
from tests.faults.markets import generate_predictable
from tests.model_files import onnx_file

Plant = Callable[[BundleFactory], Case]
WINDOW = "window16"
_ROWS_PER_LEAF = 16
"""So few that a tree shows 0.8 of what it has learned by heart, and not so few that it is too good to be true."""


@dataclass(frozen=True)
class Outside:
    """A graph with the candles, the label and the split that it was trained by."""

    graph: bytes
    frame: pl.DataFrame
    schema: str = "relative72"
    label: Label = DEFAULT_LABEL
    shares: Shares = DEFAULT_SHARES
    has_scaler: bool = True

    @property
    def examples(self) -> Examples:
        schema = indicators.find_schema(self.schema)
        assert schema is not None
        return build_examples(self.frame, schema, self.label, self.shares)

    def compute_logits(self, features: np.ndarray) -> np.ndarray:
        session = onnxruntime.InferenceSession(self.graph, providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(features)})[0]

    def declare(self, *, ahead: int = 0) -> dict[str, Any]:
        """Its true declaration; with `ahead`, the figures of features so many bars later than the rows."""
        examples, stop = self.examples, self.examples.split.stop
        cuts = self.label.compute_cuts(examples.scaled_returns[examples.split.fit])
        true = labels.assign_classes(examples.scaled_returns, cuts)[stop]
        logits = self.compute_logits(examples.features[stop.start + ahead : stop.stop + ahead])
        return {
            "dataset": candles.compute_digest(self.frame),
            "labels": {**self.label.describe(), "cuts": list(cuts)},
            "split": {"fit_percent": self.shares.fit_percent, "stop_percent": self.shares.stop_percent},
            "windows": examples.windows_with_digests(),
            "stop": _measure_stop(logits, true),
            **({} if self.has_scaler else {"scaler": "none"}),
        }


def honest(factory: BundleFactory) -> Outside:
    """The network of the good bundle, as if it had been trained elsewhere."""
    return Outside((factory.good.bundle.folder / MODEL_FILE).read_bytes(), factory.good.frame)


def folded(factory: BundleFactory, *, order: np.ndarray | None = None) -> Outside:
    """The same network with its scaler in its first layer, so that it needs none; columns in this order."""
    weights, scaler = factory.good.weights, factory.good.scaler
    wide = weights["fc1.weight"].astype(np.float64) / scaler.scale
    weights["fc1.bias"] = (weights["fc1.bias"] - wide @ scaler.mean).astype(np.float32)
    weights["fc1.weight"] = (wide if order is None else wide[:, order]).astype(np.float32)
    return Outside(onnx_graph.build_model(weights, None), factory.good.frame, has_scaler=False)


def bring(
    factory: BundleFactory, made: Outside, declaration: Mapping[str, Any] | None = None, **case: Any
) -> Case:
    """Imported with its declaration, the true one if none is given; judged on fresh candles unless `case` has others."""
    request = Request(
        "BTC", "v7_fixed", made.schema, None, False, 3600, "faults", declaration or made.declare()
    )
    written, _ = import_model(made.graph, request, factory.create_path())
    stop = factory.good.prepared.examples.window(factory.good.prepared.examples.split.stop)
    return Case(
        **{
            "folder": written.folder,
            "digest": written.digest,
            "frame": factory.fresh_frame,
            "baseline": factory.good.baseline,
            "training_frame": made.frame,
            "import_facts": {"imported_at": str(stop["last_at"]), "candles_at": str(stop["last_at"])},
            **case,
        }
    )


def healthy(factory: BundleFactory) -> Case:
    """Nothing is wrong: it must pass."""
    return bring(factory, honest(factory))


def healthy_without_scaler(factory: BundleFactory) -> Case:
    return bring(factory, folded(factory))


def declared(change: Callable[[dict[str, Any]], object]) -> Plant:
    """The honest model with one entry of its declaration changed."""

    def plant(factory: BundleFactory) -> Case:
        made = honest(factory)
        declaration = deepcopy(made.declare())
        change(declaration)
        return bring(factory, made, declaration)

    return plant


def declared_as(**terms: Any) -> Plant:
    """Terms that are not its own: cuts and windows follow them, and the stop figures are those of the truth."""

    def plant(factory: BundleFactory) -> Case:
        made = honest(factory)
        declaration = replace(made, **terms).declare()
        declaration["stop"] |= {name: made.declare()["stop"][name] for name in ("loss", "accuracy")}
        return bring(factory, made, declaration)

    return plant


def fit_figures(factory: BundleFactory) -> Case:
    """The figures of the rows that it was fitted on."""
    made, prepared = honest(factory), factory.good.prepared
    window = prepared.examples.split.fit
    logits = made.compute_logits(prepared.examples.features[window])[: len(prepared.stop_labels)]
    stop = _measure_stop(logits, prepared.labels[window][: len(logits)])
    return bring(factory, made, made.declare() | {"stop": stop})


def weighted_figures(factory: BundleFactory) -> Case:
    """The loss that its training minimised, smoothed, in place of the one that is asked for."""
    made, prepared = honest(factory), factory.good.prepared
    declaration = made.declare()
    logits = made.compute_logits(prepared.examples.features[prepared.examples.split.stop])
    weights = prepared.class_weights.astype(np.float64)
    declaration["stop"]["loss"] = compute_smoothed_loss(logits, prepared.stop_labels, weights, 0.1)
    return bring(factory, made, declaration)


def figures_of_another_model(factory: BundleFactory) -> Case:
    better = replace(honest(factory), graph=(factory.second_seed.bundle.folder / MODEL_FILE).read_bytes())
    return bring(factory, honest(factory), better.declare())


def changed_after_declaring(factory: BundleFactory) -> Case:
    """Fitted on a little further after its figures were written down."""
    weights = factory.good.weights
    weights["fc4.weight"] *= 1.1
    later = replace(honest(factory), graph=onnx_graph.build_model(weights, factory.good.scaler))
    return bring(factory, later, honest(factory).declare())


def classes_in_another_order(factory: BundleFactory) -> Case:
    """Up first, as its own code reads it; so its figures are right there."""
    weights = factory.good.weights
    for name in ("fc4.weight", "fc4.bias"):
        weights[name] = weights[name][::-1].copy()
    turned = replace(honest(factory), graph=onnx_graph.build_model(weights, factory.good.scaler))
    return bring(factory, turned, honest(factory).declare())


def windows_without_purge(factory: BundleFactory) -> Case:
    """Fit and stop window end where the next one begins, so that labels look across."""
    made = honest(factory)
    examples, declaration = made.examples, deepcopy(made.declare())
    split = examples.split
    for name, rows in (
        ("fit", slice(0, split.stop.start)),
        ("stop", slice(split.stop.start, split.gate.start)),
    ):
        declaration["windows"][name] = examples.window_with_digest(rows)
    return bring(factory, made, declaration)


def another_market(factory: BundleFactory) -> Case:
    """Trained on one market, declared for another, whose windows, cuts and figures are all as declared."""
    other = generate_predictable(BARS, noise=NOISE, seed=13)
    return bring(factory, replace(honest(factory), frame=other))


def another_market_without_scaler(factory: BundleFactory) -> Case:
    """The same without a scaler to tell, with the figures of the market that it was trained on."""
    made, other = folded(factory), generate_predictable(BARS, noise=NOISE, seed=13)
    swapped = replace(made, frame=other)
    return bring(factory, swapped, swapped.declare() | {"stop": made.declare()["stop"]})


def candles_not_at_hand(factory: BundleFactory) -> Case:
    return bring(factory, honest(factory), training_frame=None)


def candles_that_did_not_pass(factory: BundleFactory) -> Case:
    """It declares candles that stood still for two days, and all the rest as it is on them."""
    made = replace(folded(factory), frame=candle_faults.frozen())
    return bring(factory, made, baseline=_fit_v5(factory, made.frame))


def scaled_elsewhere(factory: BundleFactory) -> Case:
    """It needs no scaler, it says; its own code scales the features before the graph gets them."""
    graph = onnx_graph.build_model(factory.good.weights, None)
    return bring(factory, replace(folded(factory), graph=graph), folded(factory).declare())


def scaler_left_out(factory: BundleFactory) -> Case:
    """The graph has no scaler, and the declaration does not say that it needs none."""
    declaration = folded(factory).declare()
    del declaration["scaler"]
    return bring(factory, folded(factory), declaration)


def another_schema(factory: BundleFactory) -> Case:
    """Trained on relative72, declared for raw72: as many columns, of another meaning."""
    made = honest(factory)
    return bring(factory, replace(made, schema="raw72"), made.declare())


def sorted_columns(factory: BundleFactory) -> Case:
    """Columns sorted by name before they reached the model, and no scaler to tell."""
    order = np.argsort(indicators.SCHEMAS["relative72"].columns)
    return bring(factory, folded(factory, order=order), folded(factory).declare())


def features_a_bar_later(factory: BundleFactory) -> Case:
    """Each row was given the features of the bar after it."""
    made = folded(factory)
    later = np.roll(made.examples.features, -1, axis=0)
    fitted = _fit_linear(later, _true(made), made.examples.split.fit)
    return bring(factory, replace(made, graph=fitted), _declare_on(made, fitted, later))


def reads_ahead_in_its_window(factory: BundleFactory) -> Case:
    """Trained on windows that end a horizon after their row: they hold what the label asks for."""
    made = Outside(b"", factory.good.frame, WINDOW, has_scaler=False)
    examples = made.examples
    features = np.asarray(examples.features[: len(examples.bars)])
    ahead = np.roll(features, -DEFAULT_LABEL.horizon, axis=0)
    fitted = _fit_linear(ahead, _true(made), examples.split.fit)
    declaration = _declare_on(made, fitted, ahead)
    assert declaration["stop"]["accuracy"] > 0.8, "it reads ahead"
    return bring(factory, replace(made, graph=fitted), declaration)


def reads_the_next_row_of_its_batch(factory: BundleFactory) -> Case:
    """A graph of windows that answers each row from the one behind it, if there is one."""
    made = Outside(b"", factory.good.frame, WINDOW, has_scaler=False)
    features = np.asarray(made.examples.features[: len(made.examples.bars)])
    weight, bias = _fit_weights(features, _true(made), made.examples.split.fit)
    graph = replace(made, graph=_gemm(weight, bias, reads_next_row=True))
    return bring(factory, graph, replace(made, graph=_gemm(weight, bias, bars=16)).declare())


def memorised(rows: Callable[[Examples], slice], *, is_fresh: bool = False) -> Plant:
    """A tree that learned the classes of these rows by heart. Its declaration is true, stop figures and all.

    Judged on the candles that it knows, which were closed when it came, or on fresh ones.
    """

    def plant(factory: BundleFactory) -> Case:
        frame = factory.good.frame
        made = _learn_by_heart(Outside(b"", frame, has_scaler=False), rows)
        known: dict[str, Any] = {"frame": frame, "import_facts": _after(frame)}
        return bring(factory, made, **({} if is_fresh else known))

    return plant


def memorised_simulated_market(factory: BundleFactory) -> Case:
    """The same on a simulated market that was made before the import, whatever its bars' times are."""
    generator = SimulatorSettings(BARS, drift=0.0, seed=5)
    frame = simulate("BTC", generator.bars, generator.drift, generator.seed)
    made = _learn_by_heart(Outside(b"", frame, has_scaler=False), lambda examples: examples.split.gate)
    return bring(
        factory,
        made,
        frame=frame,
        baseline=_fit_v5(factory, frame, simulated=True),
        candle_facts=CandleFacts(generator=generator),
        import_facts={"imported_at": "2030-01-02T00:00:00Z", "candles_at": "2030-01-01T00:00:00Z"},
    )


def not_a_number_that_no_row_reaches(factory: BundleFactory) -> Case:
    """A leaf of a stump whose threshold no feature exceeds: every answer is finite."""
    made = folded(factory)
    model = onnx.load_model_from_string(made.graph)
    model.graph.node[-1].output[0] = "before the stump"
    stump = helper.make_node(
        "TreeEnsembleRegressor", ["features"], ["stump"], domain="ai.onnx.ml", n_targets=3,
        nodes_treeids=[0] * 3, nodes_nodeids=[0, 1, 2], nodes_featureids=[0] * 3,
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_values=[1e30, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[0.0, float("nan")],
    )  # fmt: skip
    model.graph.node.extend([stump, helper.make_node("Add", ["before the stump", "stump"], ["logits"])])
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return bring(factory, replace(made, graph=bytes(model.SerializeToString())), made.declare())


def forty_models_on_one_window(factory: BundleFactory) -> Case:
    """Good enough for a first, on a market that is harder; it is the fortieth that was brought to this gate window."""
    harder = generate_predictable(BARS, noise=0.35, seed=16)
    return bring(factory, honest(factory), frame=harder, attempts=40)


def _learn_by_heart(made: Outside, rows: Callable[[Examples], slice]) -> Outside:
    from sklearn.tree import DecisionTreeClassifier

    examples, true = made.examples, _true(made)
    learned = rows(examples)
    leaves = (learned.stop - learned.start) // _ROWS_PER_LEAF
    tree = DecisionTreeClassifier(max_leaf_nodes=leaves, random_state=0)
    tree.fit(examples.features[learned], true[learned])
    return replace(made, graph=_write_tree(tree))


def _write_tree(tree: Any) -> bytes:
    """Its scores are the logarithms of how often each class is in a leaf."""
    found = tree.tree_
    nodes, leaves = np.arange(found.node_count), np.flatnonzero(found.children_left < 0)
    is_leaf = found.children_left < 0
    shares = found.value[leaves, 0] / found.value[leaves, 0].sum(axis=1, keepdims=True)
    ensemble = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=3, post_transform="NONE",
        nodes_treeids=[0] * len(nodes), nodes_nodeids=nodes.tolist(),
        nodes_featureids=np.where(is_leaf, 0, found.feature).tolist(),
        nodes_modes=["LEAF" if leaf else "BRANCH_LEQ" for leaf in is_leaf],
        nodes_values=np.where(is_leaf, 0.0, found.threshold).tolist(),
        nodes_truenodeids=np.where(is_leaf, 0, found.children_left).tolist(),
        nodes_falsenodeids=np.where(is_leaf, 0, found.children_right).tolist(),
        target_treeids=[0] * (3 * len(leaves)), target_nodeids=np.repeat(leaves, 3).tolist(),
        target_ids=[0, 1, 2] * len(leaves), target_weights=np.log(shares + 0.05).reshape(-1).tolist(),
    )  # fmt: skip
    return onnx_file([ensemble], {}, opsets={"": 17, "ai.onnx.ml": 3})


def _fit_v5(factory: BundleFactory, frame: pl.DataFrame, *, simulated: bool = False) -> Any:
    """The folder of the V5 that skill compares with, of these candles."""
    fitted = fit(prepare(frame, RECIPES["v5"]), RECIPES["v5"], seed=SEED)
    digest = candles.compute_digest(frame)
    return write_bundle(
        factory.create_path(),
        fitted,
        coin="BTC",
        dataset_digest=digest,
        simulated=simulated,
        code_version="faults",
    ).folder


def _after(frame: pl.DataFrame) -> dict[str, str]:
    """It came when the last of these candles had closed."""
    last = f"{frame['timestamp'][-1]:%Y-%m-%dT%H:%M:%SZ}"
    return {"imported_at": last, "candles_at": last}


def _true(made: Outside) -> np.ndarray:
    """The class of every row."""
    examples = made.examples
    cuts = made.label.compute_cuts(examples.scaled_returns[examples.split.fit])
    return labels.assign_classes(examples.scaled_returns, cuts)


def _declare_on(made: Outside, graph: bytes, features: np.ndarray) -> dict[str, Any]:
    """A declaration with the stop figures of these features, as its own code has them."""
    stop, true = made.examples.split.stop, _true(made)
    logits = replace(made, graph=graph).compute_logits(features[stop])
    sound = replace(made, graph=graph).declare()
    return sound | {"stop": _measure_stop(logits, true[stop])}


def _measure_stop(logits: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    return {
        "loss": compute_smoothed_loss(logits, true, np.ones(3), 0.0),
        "accuracy": float((logits.argmax(axis=1) == true).mean()),
        "rows": len(true),
    }


def _fit_linear(features: np.ndarray, true: np.ndarray, rows: slice) -> bytes:
    weight, bias = _fit_weights(features, true, rows)
    return _gemm(weight, bias, bars=features.shape[1] if features.ndim == 3 else None)


def _fit_weights(features: np.ndarray, true: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Of a logistic regression with its scaler folded in: [3, columns] and [3]."""
    from sklearn.linear_model import LogisticRegression

    flat = features[rows].reshape(rows.stop - rows.start, -1).astype(np.float64)
    mean, scale = flat.mean(axis=0), flat.std(axis=0) + 1e-12
    model = LogisticRegression(C=0.01, tol=1e-3).fit((flat - mean) / scale, true[rows])
    weight = model.coef_ / scale
    return weight, model.intercept_ - weight @ mean


def _gemm(
    weight: np.ndarray, bias: np.ndarray, *, bars: int | None = None, reads_next_row: bool = False
) -> bytes:
    """One linear layer, of features or of flattened windows."""
    tensors = {"w": weight.astype(np.float32), "b": bias.astype(np.float32)}
    if bars is None and not reads_next_row:
        return onnx_file([helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], tensors)
    nodes = [helper.make_node("Flatten", ["x"], ["flat"])]
    if reads_next_row:
        tensors |= {name: np.array([value]) for name, value in (("one", 1), ("end", 2**40), ("nought", 0))}
        nodes += [
            helper.make_node("Slice", ["flat", "one", "end", "nought"], ["later"]),
            helper.make_node("Slice", ["flat", "nought", "one", "nought"], ["first"]),
            helper.make_node("Concat", ["later", "first"], ["rows"], axis=0),
        ]
    nodes.append(helper.make_node("Gemm", [nodes[-1].output[0], "w", "b"], ["y"], transB=1))
    return onnx_file(nodes, tensors, shape=("n", 16, 5))  # type: ignore[arg-type]  # a window has two dimensions


OF_PERCENT = Label(LabelKind.PERCENT, DEFAULT_LABEL.horizon, 1.0)
OF_BARRIERS = Label(LabelKind.BARRIERS, DEFAULT_LABEL.horizon, 1.0)
