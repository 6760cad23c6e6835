"""Boosted trees of LightGBM on the 72 relative features: fitted, checked, uploaded and judged from a notebook.

CRPBOT_URL=… CRPBOT_TOKEN=… python lightgbm_features.py

pip install 'lightgbm>=4.7' onnxmltools
"""

import os

import lightgbm
import onnx
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from crpbot_runtime.train import Gate, Rows

COIN, LINE, HORIZON = "BTC", "notebook", 2


def fit(rows: Rows, trees: int = 200) -> bytes:
    """An ONNX file: features [batch, 72] → raw scores [batch, 3]. As many trees as the stop window likes best."""
    model = lightgbm.LGBMClassifier(
        n_estimators=trees,
        num_leaves=8,
        learning_rate=0.05,
        min_child_samples=100,
        subsample=0.5,
        subsample_freq=1,
        colsample_bytree=0.3,
        random_state=1,
        n_jobs=1,
        verbose=-1,
    )
    model.fit(
        rows.fit.features,
        rows.fit.labels,
        sample_weight=rows.class_weights[rows.fit.labels],
        eval_X=rows.stop.features,
        eval_y=rows.stop.labels,
        callbacks=[lightgbm.early_stopping(20, verbose=False)],
    )
    given = [("features", FloatTensorType([None, rows.fit.features.shape[1]]))]
    return keep_scores(convert_lightgbm(model, initial_types=given, target_opset=15))


def keep_scores(graph: onnx.ModelProto) -> bytes:
    """The graph up to its trees: bots need their scores, not the probabilities and the label behind them."""
    nodes = graph.graph.node
    trees = next(node for node in nodes if node.op_type == "TreeEnsembleClassifier")
    next(each for each in trees.attribute if each.name == "post_transform").s = b"NONE"
    del nodes[list(nodes).index(trees) + 1 :], graph.graph.output[:]
    scores = onnx.helper.make_tensor_value_info(trees.output[1], onnx.TensorProto.FLOAT, [None, 3])
    graph.graph.output.append(scores)
    return graph.SerializeToString()


if __name__ == "__main__":
    with Gate(os.environ["CRPBOT_URL"], os.environ["CRPBOT_TOKEN"]) as gate:
        dataset = gate.datasets(coin=COIN, verdict="passed")[0]  # the newest
        rows = gate.prepare(dataset, input="relative72", horizon=HORIZON)
        graph = fit(rows)
        print(gate.check(rows, graph, has_scaler=False))
        bundle = gate.upload(rows, graph, line=LINE, has_scaler=False)
        newer = gate.wait_for_dataset(bundle)  # import later candles, or simulate another market
        release = gate.launch(LINE, bundles={COIN: bundle["digest"]}, datasets={COIN: newer["id"]})
        release = gate.wait(release)
        print(f"release {release['id']}: {release['state']}. {release['reason']}")
