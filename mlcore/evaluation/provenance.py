"""What the manifest claims about its training, against what the candles of that training give.

Nothing is compared that is not at hand: where the training's candles are not, or the bundle came from outside, the
answer is null, and not true.
"""

import json
from functools import reduce
from typing import Any

import numpy as np

from mlcore.bundle.format import SCALER_FILE, Layout
from mlcore.data.validation import infer_interval_ms
from mlcore.errors import BundleRefused
from mlcore.evaluation import reference
from mlcore.evaluation.context import EvaluationContext, read_claim, read_claimed_number
from mlcore.evaluation.inspection import read_weights
from mlcore.evaluation.leakage import count_shared_rows
from mlcore.evaluation.single_rows import sample_evenly
from mlcore.features import indicators, labels
from mlcore.features.examples import Examples
from mlcore.features.scaler import Scaler

STATISTICS_TOLERANCE = 1e-4
"""In units of a column's scale. Recomputing gives the same to 1e-12; one coin's scaler on another's candles, or one
fitted on the whole series, is beyond 1e-3 in most columns."""

_CUTS_TOLERANCE = 1e-6
_FOLLOWED_ROWS = 256
_FOLLOWED_TOLERANCE = 1e-3
"""In parts of the greatest logit, at least of 1. The graph adds in float32, which is off by 1e-6; a layer more, less or
elsewhere by far more than this."""

_WINDOW_FACTS = ("first_at", "last_at", "rows", "digest")


def measure_windows(context: EvaluationContext) -> dict[str, Any]:
    """The gate window measured; fit and stop as the training's candles give them, else as the manifest claims."""
    training, named = context.training, context.manifest.dataset_digest
    stated = {name: _claimed_window(context, name) for name in ("fit", "stop", "gate")}
    found = stated if training is None else _windows_of(training)
    is_own = named == context.dataset_digest
    return {
        "horizon_bars": labels.HORIZON_BARS,
        "interval_seconds": infer_interval_ms(context.frame) // 1000,
        "gate": found["gate"] if is_own else context.examples.window_with_digest(context.examples.split.gate),
        "fit": found["fit"],
        "stop": found["stop"],
        "on_training_candles": None if named is None else is_own,
        "recomputed": None if training is None else all(_holds(stated[name], found[name]) for name in found),
        "rows_shared": None if training is None else _rows_shared(context, training),
    }


def _windows_of(training: Examples) -> dict[str, dict[str, Any]]:
    return {
        name: training.window_with_digest(getattr(training.split, name)) for name in ("fit", "stop", "gate")
    }


def _claimed_window(context: EvaluationContext, name: str) -> dict[str, Any] | None:
    """As the manifest states it; of a bundle from outside there is none."""
    if read_claim(context.manifest.document, "windows", name) is None:
        return None
    facts = {fact: read_claim(context.manifest.document, "windows", name, fact) for fact in _WINDOW_FACTS}
    return {
        fact: value if isinstance(value, int | None) else str(value)[:80] for fact, value in facts.items()
    }


def _holds(stated: dict[str, Any] | None, found: dict[str, Any] | None) -> bool:
    """A bundle older than the digests of windows states none; everything else it must state."""
    if stated is None or found is None:
        return False
    return stated in (found, {**found, "digest": None})


def _rows_shared(context: EvaluationContext, training: Examples) -> int:
    """Gate rows among those that were fitted on or chosen the epoch by."""
    split = training.split
    learned = np.concatenate([training.bars[split.fit], training.bars[split.stop]])
    frame = context.training_candles
    assert frame is not None
    return count_shared_rows(context.frame, context.gate_bars, frame, learned)


def measure_schema(context: EvaluationContext) -> dict[str, Any]:
    """Whether the features are those the bot computes, and the scaler that of the training's fit window."""
    name, columns = context.manifest.schema_name, context.schema.columns
    found: dict[str, Any] = {
        "name": name[:40],
        "digest_matches": context.manifest.schema_digest == indicators.SCHEMAS[name].digest,
    }
    if SCALER_FILE not in context.manifest.files:
        why = "the bundle holds no scaler to compare with its training's"
        return {
            **found,
            **dict.fromkeys(("names_match", "statistics_match", "columns_out_of_place")),
            "problem": why,
        }
    held = json.loads((context.inspection.folder / SCALER_FILE).read_bytes())
    names = [str(held_name)[:60] for held_name in held["names"]]
    misnamed = {column for column, at in zip(columns, names, strict=False) if column != at}
    training = context.training
    drifted = set() if training is None else _out_of_place(held, training, columns)
    return {
        **found,
        "names_match": names == list(columns),
        "statistics_match": None if training is None else not drifted,
        "columns_out_of_place": [column for column in columns if column in misnamed | drifted],
    }


def _out_of_place(held: dict[str, Any], training: Examples, columns: tuple[str, ...]) -> set[str]:
    """Columns whose mean or scale are not those of the fit window; a figure that is no number is none of them."""
    expected = Scaler.fit(training.features[training.split.fit])
    mean, scale = np.asarray(held["mean"], np.float64), np.asarray(held["scale"], np.float64)
    if mean.shape != expected.mean.shape or scale.shape != expected.scale.shape:
        raise BundleRefused(
            f"{SCALER_FILE} has {mean.size} means and {scale.size} scales for {len(columns)} columns"
        )
    with np.errstate(all="ignore"):
        off = np.maximum(np.abs(mean - expected.mean), np.abs(scale - expected.scale)) / expected.scale
    return {
        column for column, distance in zip(columns, off, strict=True) if not distance <= STATISTICS_TOLERANCE
    }


@np.errstate(all="ignore")  # logits that are no numbers give figures that are none, and gates read those
def measure_reload(context: EvaluationContext) -> dict[str, Any]:
    """The stop window's figures that training reported, against those of the stored bytes, in a process that did not train.

    `largest_difference` is the greater of loss's and accuracy's, null where there is nothing to compare.
    """
    found: dict[str, Any] = {
        "reported": _reported(context),
        "recomputed": dict.fromkeys(("loss", "accuracy", "rows")),
        "largest_difference": None,
        "cuts_match": None,
        "weights_equal_in_graph": _graph_follows_weights(context),
    }
    training = context.training
    if training is None:
        return {
            **found,
            "problem": "the candles of its training are not at hand, so nothing can be recomputed",
        }
    recomputed = _stop_figures(context, training)
    found |= {"recomputed": recomputed, "cuts_match": _cuts_match(context)}
    pairs = [(found["reported"][name], recomputed[name]) for name in ("loss", "accuracy")]
    if any(reported is None for reported, _ in pairs):
        return {**found, "problem": "the manifest does not say what its training reported"}
    return {**found, "largest_difference": float(max(abs(said - is_now) for said, is_now in pairs))}


def _graph_follows_weights(context: EvaluationContext) -> bool | None:
    """Whether the graph holds the weights file's tensors and does with them what the network does, and nothing else.

    What a graph from outside should do is written nowhere else: there only the tensors are compared.
    """
    is_same = context.inspection.weights_part["equal_in_graph"]
    parameters = context.manifest.document.get("parameters")
    if is_same is not True or read_claim(parameters, "network") not in ("perceptron", "logistic"):
        return is_same
    layout = Layout(read_claim(parameters, "layout") or Layout.RELU_BEFORE_BN)
    gate = context.examples.split.gate
    rows = sample_evenly(np.arange(gate.start, gate.stop), _FOLLOWED_ROWS)
    raw = context.examples.features[rows]
    scaled = _scaler_of(context).transform(raw) if SCALER_FILE in context.manifest.files else raw
    expected = reference.compute_logits(read_weights(context.inspection.folder), scaled, layout)
    if not np.isfinite(expected).all():
        return is_same  # neither does anything, and other figures say so
    reach = max(1.0, float(np.abs(expected).max()))
    return bool(np.abs(context.logits[rows - gate.start] - expected).max() <= _FOLLOWED_TOLERANCE * reach)


def _scaler_of(context: EvaluationContext) -> Scaler:
    held = json.loads((context.inspection.folder / SCALER_FILE).read_bytes())
    return Scaler(np.asarray(held["mean"], np.float64), np.asarray(held["scale"], np.float64))


def _reported(context: EvaluationContext) -> dict[str, float | None]:
    document = context.manifest.document
    return {
        name: read_claimed_number(document, "training", "validation", name)
        for name in ("loss", "accuracy", "rows", "epoch")
    }


def _cuts_match(context: EvaluationContext) -> bool:
    stated, found = context.manifest.cuts, context.training_cuts
    return (
        stated is not None
        and found is not None
        and bool(np.allclose(stated, found, atol=_CUTS_TOLERANCE, rtol=0))
    )


def _stop_figures(context: EvaluationContext, training: Examples) -> dict[str, Any]:
    stop = training.split.stop
    logits = context.stop_logits
    assert context.training_cuts is not None and logits is not None
    classes = labels.assign_classes(training.scaled_returns, context.training_cuts)
    parameters = context.manifest.document.get("parameters")
    weights = np.ones(3)
    if read_claim(parameters, "weighs_classes") is True:
        counts = np.bincount(classes[training.split.fit], minlength=3)
        weights = (counts.sum() / (3 * counts)).astype(np.float32).astype(np.float64)
    smoothing = read_claimed_number(parameters, "label_smoothing") or 0.0
    return {
        "loss": compute_smoothed_loss(logits, classes[stop], weights, smoothing),
        "accuracy": float((logits.argmax(axis=1) == classes[stop]).mean()),
        "rows": len(logits),
    }


def compute_smoothed_loss(
    logits: np.ndarray, true: np.ndarray, weights: np.ndarray, smoothing: float
) -> float:
    """What training minimises and reports, in float64: torch's class-weighted cross-entropy with smoothing.

    With p the softmax of a row's logits, y its class, w the class weights, ε the smoothing and K = 3 classes:
    Σ_rows [(1 − ε) · w_y · −log p_y + ε/K · Σ_k w_k · −log p_k] / Σ_rows w_y. Equal weights and ε = 0 are the log loss.
    """
    wide = logits.astype(np.float64)
    wide -= reduce(np.maximum, wide.T)[:, np.newaxis]  # class by class: NumPy is slow along so short an axis
    surprise = weights * (np.log(reduce(np.add, np.exp(wide).T))[:, np.newaxis] - wide)
    of_true = surprise[np.arange(len(true)), true]
    mixed = (1 - smoothing) * of_true + smoothing * surprise.mean(axis=1)
    return float(mixed.sum() / weights[true].sum())
