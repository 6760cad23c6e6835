"""The networks' arithmetic in NumPy, float64: what the weights file says, beside what the graph in the bundle does."""

from collections.abc import Mapping

import numpy as np

from mlcore.bundle.format import Layout

_EPSILON = 1e-5  # torch's BatchNorm1d
_HIDDEN_LAYERS = (1, 2, 3)


def compute_logits(weights: Mapping[str, np.ndarray], scaled: np.ndarray, layout: Layout) -> np.ndarray:
    """float64 [n, 3] from features [n, 72] as the first layer takes them. Raises KeyError for a tensor missing."""
    wide = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
    with np.errstate(all="ignore"):  # weights that are no numbers give logits that are none
        return _linear(wide, "coef", scaled) if "coef.weight" in wide else _perceptron(wide, scaled, layout)


def _perceptron(wide: Mapping[str, np.ndarray], value: np.ndarray, layout: Layout) -> np.ndarray:
    for layer in _HIDDEN_LAYERS:
        value = _linear(wide, f"fc{layer}", value)
        if layout is Layout.RELU_BEFORE_BN:
            value = _normal(wide, f"bn{layer}", np.maximum(value, 0))
        else:
            value = np.maximum(_normal(wide, f"bn{layer}", value), 0)
    return _linear(wide, "fc4", value)


def _linear(weights: Mapping[str, np.ndarray], name: str, value: np.ndarray) -> np.ndarray:
    return value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _normal(weights: Mapping[str, np.ndarray], name: str, value: np.ndarray) -> np.ndarray:
    deviation = np.sqrt(weights[f"{name}.running_var"] + _EPSILON)
    return (value - weights[f"{name}.running_mean"]) / deviation * weights[f"{name}.weight"] + weights[
        f"{name}.bias"
    ]
