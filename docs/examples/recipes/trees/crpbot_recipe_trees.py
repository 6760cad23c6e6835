"""A recipe: stochastic gradient boosting (Friedman 2002) on 72 features, as many trees as fit the stop window best."""

from typing import Any

import numpy as np
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import log_loss

INPUTS = ("relative72", "raw72")
PARAMETERS = {
    "trees": {"default": 60, "least": 1, "greatest": 400, "meaning": "trees of each class, at most"},
    "leaves": {"default": 8, "least": 2, "greatest": 64, "meaning": "leaves of a tree, at most"},
    "shrinkage": {
        "default": 0.1,
        "least": 0.001,
        "greatest": 1.0,
        "meaning": "part of each tree that is added",
    },
    "rows_share": {
        "default": 0.5,
        "least": 0.1,
        "greatest": 1.0,
        "meaning": "part of the rows that a tree sees",
    },
}


def fit(rows: Any) -> bytes:
    """An ONNX file: features [batch, 72] → raw scores [batch, 3]. Trees need no scaler."""
    weights = rows.class_weights[rows.labels]
    model = _build(rows, rows.parameters["trees"]).fit(rows.features, rows.labels, weights)
    losses = [
        log_loss(rows.stop_labels, shares, labels=[0, 1, 2])
        for shares in model.staged_predict_proba(rows.stop_features)
    ]
    best = int(np.argmin(losses)) + 1
    if best < len(losses):  # the same seed grows the same first trees
        model = _build(rows, best).fit(rows.features, rows.labels, weights)
    graph = to_onnx(model, rows.features[:1], options={"zipmap": False, "raw_scores": True})
    return bytes(graph.SerializeToString())


def _build(rows: Any, trees: int) -> GradientBoostingClassifier:
    return GradientBoostingClassifier(
        n_estimators=trees,
        max_leaf_nodes=rows.parameters["leaves"],
        learning_rate=rows.parameters["shrinkage"],
        subsample=rows.parameters["rows_share"],
        max_features="sqrt",
        random_state=rows.seed,
    )
