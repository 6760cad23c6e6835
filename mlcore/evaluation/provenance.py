"""The manifest's claims about the training, compared with what the training's candles give.

Without these candles, or for an imported model, nothing can be compared: the answer is then null, never true.
"""

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np

from mlcore.bundle.format import SCALER_FILE, Layout, read_claim, read_claimed_number
from mlcore.constants import CLASSES
from mlcore.data.validation import infer_interval_ms
from mlcore.errors import BundleRefused
from mlcore.evaluation.context import EvaluationContext, sample_evenly
from mlcore.evaluation.inspection import read_scaler, read_weights
from mlcore.evaluation.leakage import count_shared_rows
from mlcore.features import labels
from mlcore.features.examples import Examples
from mlcore.features.scaler import Scaler
from mlcore.features.splits import WINDOWS

STATISTICS_TOLERANCE = 1e-4
"""In units of a column's scale. A recomputed scaler agrees to 1e-12. The scaler of another coin, or of the whole series,
differs by more than 1e-3 in most columns."""

_CUTS_TOLERANCE = 1e-6
_COMPARED_ROWS = 256
_LOGIT_TOLERANCE = 1e-3
"""Relative to the greatest logit, at least to 1. The graph adds in float32, which differs by 1e-6; a changed, missing or
extra layer differs by far more."""

_BATCH_NORM_EPSILON = 1e-5  # torch's BatchNorm1d


def measure_windows(context: EvaluationContext) -> dict[str, Any]:
    """The measured gate window; fit and stop window as recomputed from the training's candles, else as claimed."""
    training, named = context.training, context.manifest.dataset_digest
    claimed = {name: _read_window(context, name) for name in WINDOWS}
    windows = claimed if training is None else training.windows_with_digests()
    is_own = named == context.dataset_digest
    examples = context.examples
    return {
        "horizon_bars": context.label.horizon,
        "interval_seconds": infer_interval_ms(context.frame) // 1000,
        "gate": windows["gate"] if is_own else examples.window_with_digest(examples.split.gate),
        "fit": windows["fit"],
        "stop": windows["stop"],
        "on_training_candles": None if named is None else is_own,
        "recomputed": None if training is None else claimed == windows,
        "rows_shared": None if training is None else _count_shared_rows(context, training),
    }


def measure_label(context: EvaluationContext) -> dict[str, Any]:
    """What it is judged by: the label that its manifest declares, with the cuts that were used, and the split."""
    label, shares = context.label, context.manifest.shares
    return {
        "text": label.text,
        "input": context.schema.name,
        "kind": str(label.kind),
        "horizon_bars": label.horizon,
        "cut": label.cut,
        "cuts": list(context.cuts),
        "shares": [shares.fit_percent, shares.stop_percent, shares.gate_percent],
    }


def _read_window(context: EvaluationContext, name: str) -> dict[str, Any] | None:
    """As the manifest claims it; None for an imported model."""
    window = read_claim(context.manifest.document, "windows", name)
    if window is None:
        return None
    facts = {fact: read_claim(window, fact) for fact in ("first_at", "last_at", "rows", "digest")}
    return {
        fact: value if isinstance(value, int | None) else str(value)[:80] for fact, value in facts.items()
    }


def _count_shared_rows(context: EvaluationContext, training: Examples) -> int:
    """Gate rows that were fitted on, or that chose the best epoch."""
    split = training.split
    learned = np.concatenate([training.bars[split.fit], training.bars[split.stop]])
    frame = context.training_candles
    assert frame is not None
    return count_shared_rows(context.frame, context.gate_bars, frame, learned)


def measure_schema(context: EvaluationContext) -> dict[str, Any]:
    """Whether the features are those that the bot computes, and the scaler that of the training's fit window."""
    columns, training = context.schema.columns, context.training
    digest_matches = context.manifest.schema_digest == context.schema.digest
    schema = {"name": context.schema.name, "digest_matches": digest_matches}
    if SCALER_FILE not in context.manifest.files:
        unknown: dict[str, Any] = dict.fromkeys(("names_match", "statistics_match", "columns_out_of_place"))
        if not context.manifest.needs_scaler:
            return schema | unknown | {"columns_out_of_place": [], "has_scaler": False}
        return schema | unknown | {"problem": "the bundle holds no scaler to compare with its training's"}
    stored_names, scaler = read_scaler(context.inspection.folder)
    names = [str(stored)[:60] for stored in stored_names]
    misnamed = {column for column, stored in zip(columns, names, strict=False) if column != stored}
    differing = set() if training is None else _find_differing_columns(scaler, training, columns)
    return {
        **schema,
        "names_match": names == list(columns),
        "statistics_match": None if training is None else not differing,
        "columns_out_of_place": [column for column in columns if column in misnamed | differing],
    }


def _find_differing_columns(scaler: Scaler, training: Examples, columns: tuple[str, ...]) -> set[str]:
    """Columns whose mean or scale differs from the fit window's; NaN differs too."""
    expected = Scaler.fit(training.features[training.split.fit])
    if scaler.mean.shape != expected.mean.shape or scaler.scale.shape != expected.scale.shape:
        raise BundleRefused(
            f"{SCALER_FILE} has {scaler.mean.size} means and {scaler.scale.size} scales for {len(columns)} columns"
        )
    with np.errstate(all="ignore"):
        distances = np.maximum(np.abs(scaler.mean - expected.mean), np.abs(scaler.scale - expected.scale))
        distances /= expected.scale
    return {columns[column] for column in np.flatnonzero(~(distances <= STATISTICS_TOLERANCE))}


@np.errstate(all="ignore")  # logits that are not finite give figures that are not, and gates read those
def measure_reload(context: EvaluationContext) -> dict[str, Any]:
    """The figures that training reported for the stop window, compared with those of the stored files.

    `largest_difference` is the greater of loss's and accuracy's, null if there is nothing to compare.
    """
    document, training = context.manifest.document, context.training
    reported = {
        name: read_claimed_number(document, "training", "validation", name)
        for name in ("loss", "accuracy", "rows", "epoch")
    }
    figures: dict[str, Any] = {
        "reported": reported,
        "recomputed": dict.fromkeys(("loss", "accuracy", "rows")),
        "largest_difference": None,
        "cuts_match": None,
        "weights_equal_in_graph": _does_graph_match_weights(context),
    }
    if training is None:
        return figures | {
            "problem": "the candles of its training are not at hand, so nothing can be recomputed"
        }
    recomputed = _recompute_stop_figures(context, training)
    claimed, cuts = context.manifest.cuts, context.training_cuts
    do_match = claimed and cuts and np.allclose(claimed, cuts, atol=_CUTS_TOLERANCE, rtol=0)
    figures |= {"recomputed": recomputed, "cuts_match": bool(do_match)}
    loss, accuracy = reported["loss"], reported["accuracy"]
    if loss is None or accuracy is None:
        return {**figures, "problem": "the manifest does not say what its training reported"}
    difference = max(abs(loss - recomputed["loss"]), abs(accuracy - recomputed["accuracy"]))
    return {**figures, "largest_difference": float(difference)}


def _does_graph_match_weights(context: EvaluationContext) -> bool | None:
    """Whether the graph holds the weights file's tensors and computes exactly what the network computes with them.

    Nothing says what an imported graph should compute, so only its tensors are compared.
    """
    is_same: bool | None = context.inspection.weights["equal_in_graph"]
    parameters = context.manifest.document.get("parameters")
    if is_same is not True or read_claim(parameters, "network") not in ("perceptron", "logistic", "flat"):
        return is_same
    layout = Layout(read_claim(parameters, "layout") or Layout.RELU_BEFORE_BN)
    gate, folder = context.examples.split.gate, context.inspection.folder
    rows = sample_evenly(np.arange(gate.start, gate.stop), _COMPARED_ROWS)
    features = context.examples.features[rows]
    if SCALER_FILE in context.manifest.files:
        features = read_scaler(folder)[1].transform(features)
    expected = _compute_logits(read_weights(folder), features.reshape(len(features), -1), layout)
    if not np.isfinite(expected).all():
        return is_same  # other figures report this
    greatest = max(1.0, float(np.abs(expected).max()))
    return bool(np.abs(context.logits[rows - gate.start] - expected).max() <= _LOGIT_TOLERANCE * greatest)


def _compute_logits(weights: Mapping[str, np.ndarray], scaled: np.ndarray, layout: Layout) -> np.ndarray:
    """What the weights file should compute, float64 [n, 3], from scaled features [n, 72].

    In NumPy, apart from the graph that it is compared with. Raises KeyError for a missing tensor.
    """
    wide = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
    with np.errstate(all="ignore"):  # weights that are not finite give logits that are not
        if "coef.weight" in wide:
            return _apply_linear(wide, "coef", scaled)
        for layer in (1, 2, 3):
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
    return (value - mean) / np.sqrt(weights[f"{name}.running_var"] + _BATCH_NORM_EPSILON) * weight + bias


def _recompute_stop_figures(context: EvaluationContext, training: Examples) -> dict[str, Any]:
    logits, split = context.stop_logits, training.split
    assert context.training_cuts is not None and logits is not None
    classes = labels.assign_classes(training.scaled_returns, context.training_cuts)
    true = classes[split.stop]
    parameters = context.manifest.document.get("parameters")
    weights = np.ones(len(CLASSES))
    if read_claim(parameters, "weighs_classes") is True:
        weights = labels.compute_class_weights(classes[split.fit]).astype(np.float64)
    smoothing = read_claimed_number(parameters, "label_smoothing") or 0.0
    return {
        "loss": compute_smoothed_loss(logits, true, weights, smoothing),
        "accuracy": float((logits.argmax(axis=1) == true).mean()),
        "rows": len(logits),
    }


def compute_smoothed_loss(
    logits: np.ndarray, true: np.ndarray, weights: np.ndarray, smoothing: float
) -> float:
    """The loss that training minimises, in float64: torch's class-weighted cross-entropy with label smoothing.

    With p the softmax of a row's logits, y its class, w the class weights, ε the smoothing and K = 3 classes:
    Σ_rows [(1 − ε) · w_y · −log p_y + ε/K · Σ_k w_k · −log p_k] / Σ_rows w_y. Equal weights and ε = 0 are the log loss.
    """
    wide = logits.astype(np.float64)
    wide -= reduce(np.maximum, wide.T)[:, np.newaxis]  # by class: NumPy is slow along so short an axis
    surprise = weights * (np.log(reduce(np.add, np.exp(wide).T))[:, np.newaxis] - wide)
    of_true = surprise[np.arange(len(true)), true]
    mixed = (1 - smoothing) * of_true + smoothing * surprise.mean(axis=1)
    return float(mixed.sum() / weights[true].sum())
