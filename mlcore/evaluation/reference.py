"""The networks' arithmetic in NumPy, float64: what the weights file should compute, to compare the graph with."""

from collections.abc import Mapping

import numpy as np

from mlcore.bundle.format import Layout

_EPSILON = 1e-5  # torch's BatchNorm1d
_HIDDEN_LAYERS = (1, 2, 3)


def compute_logits(weights: Mapping[str, np.ndarray], scaled: np.ndarray, layout: Layout) -> np.ndarray:
    """float64 [n, 3] from scaled features [n, 72]. Raises KeyError for a missing tensor."""
    wide = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
    with np.errstate(all="ignore"):  # weights that are not finite give logits that are not
        if "coef.weight" in wide:
            return _apply_linear(wide, "coef", scaled)
        for layer in _HIDDEN_LAYERS:
            scaled = _apply_linear(wide, f"fc{layer}", scaled)
            if layout is Layout.RELU_BEFORE_BN:
                scaled = _apply_batch_norm(wide, f"bn{layer}", np.maximum(scaled, 0))
            else:
                scaled = np.maximum(_apply_batch_norm(wide, f"bn{layer}", scaled), 0)
        return _apply_linear(wide, "fc4", scaled)


def _apply_linear(weights: Mapping[str, np.ndarray], name: str, value: np.ndarray) -> np.ndarray:
    return value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _apply_batch_norm(weights: Mapping[str, np.ndarray], name: str, value: np.ndarray) -> np.ndarray:
    mean, weight, bias = (weights[f"{name}.{tensor}"] for tensor in ("running_mean", "weight", "bias"))
    return (value - mean) / np.sqrt(weights[f"{name}.running_var"] + _EPSILON) * weight + bias
