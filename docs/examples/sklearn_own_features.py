"""Features of your own, computed inside the graph from the last 64 bars, and boosted trees of scikit-learn on them.

    CRPBOT_URL=… CRPBOT_TOKEN=… python sklearn_own_features.py

    pip install scikit-learn skl2onnx

The features are one small graph. It gives the rows to fit on, and it is the first part of what is uploaded: so they cannot
differ between training and bot, and they cannot look ahead, since a window ends with the bar that is decided on.
"""

import os

import numpy as np
import onnx
import onnxruntime
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier

from crpbot_runtime.train import Gate, Rows

COIN, LINE, HORIZON = "BTC", "notebook", 2
OPSET = 17
FEATURES = """
<ir_version: 8, opset_import: ["" : 17]>
own (float[batch, 64, 5] windows) => (float[batch, 19] features)
<int64 high = {1}, int64 low = {2}, int64 close = {3}, int64 volume = {4}, float least = {0.000001},
 int64[16] earlier = {0, 8, 16, 24, 32, 40, 44, 48, 52, 54, 56, 58, 59, 60, 61, 62},
 int64[1] time = {1}, int64[1] from = {0}, int64[1] next = {1}, int64[1] recent = {55}, int64[1] last = {63},
 int64[1] end = {64}>
{
  closes = Gather <axis = 2> (windows, close)
  later = Slice (closes, next, end, time)
  before = Slice (closes, from, last, time)
  returns = Sub (later, before)
  squares = Mul (returns, returns)
  variance = ReduceMean <axes = [1], keepdims = 1> (squares)
  deviation = Sqrt (variance)
  volatility = Add (deviation, least)

  moved = Gather <axis = 1> (closes, earlier)
  moves = Div (moved, volatility)
  average = ReduceMean <axes = [1], keepdims = 1> (closes)
  distance = Div (average, volatility)

  highs = Gather <axis = 2> (windows, high)
  lows = Gather <axis = 2> (windows, low)
  ranges = Sub (highs, lows)
  mean_range = ReduceMean <axes = [1], keepdims = 1> (ranges)
  range = Div (mean_range, volatility)

  volumes = Gather <axis = 2> (windows, volume)
  newest = Slice (volumes, recent, end, time)
  activity = ReduceMean <axes = [1], keepdims = 1> (newest)
  features = Concat <axis = 1> (moves, distance, range, activity)
}
"""
"""The distances of 16 earlier closes and of the mean close from the last one, and the mean range, all in units of the bars'
volatility; and the volume of the last nine bars. `opset_import` is OPSET."""


def fit(rows: Rows, trees: int = 60) -> bytes:
    """An ONNX file: windows [batch, 64, 5] → features [batch, 19] → raw scores [batch, 3]. Trees need no scaler."""
    own = onnx.parser.parse_model(FEATURES)
    session = onnxruntime.InferenceSession(own.SerializeToString(), providers=["CPUExecutionProvider"])
    (features,) = session.run(None, {"windows": rows.fit.features})
    model = GradientBoostingClassifier(
        n_estimators=trees, max_leaf_nodes=8, subsample=0.5, max_features="sqrt", random_state=1
    )
    model.fit(features, rows.fit.labels, rows.class_weights[rows.fit.labels])
    options = {"zipmap": False, "raw_scores": True}
    trained = to_onnx(
        model, np.zeros((1, features.shape[1]), np.float32), options=options, target_opset=OPSET
    )
    trained.ir_version = own.ir_version
    whole = onnx.compose.merge_models(own, trained, io_map=[("features", "X")])
    return whole.SerializeToString()


if __name__ == "__main__":
    with Gate(os.environ["CRPBOT_URL"], os.environ["CRPBOT_TOKEN"]) as gate:
        dataset = gate.datasets(coin=COIN, verdict="passed")[0]  # the newest
        rows = gate.prepare(dataset, input="window64", horizon=HORIZON)
        graph = fit(rows)
        print(gate.check(rows, graph, has_scaler=False))
        bundle = gate.upload(rows, graph, line=LINE, has_scaler=False)
        newer = gate.wait_for_dataset(bundle)  # import later candles, or simulate another market
        release = gate.launch(LINE, bundles={COIN: bundle["digest"]}, datasets={COIN: newer["id"]})
        release = gate.wait(release)
        print(f"release {release['id']}: {release['state']}. {release['reason']}")
