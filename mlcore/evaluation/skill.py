"""The skill of a bundle, compared with naive forecasters and with a V5 that was fitted on the same candles and windows.

Hits are compared on the same rows and the same resamples: an easy stretch raises both and moves no difference.
"""

from typing import Any

import numpy as np

from mlcore.bundle.format import MODEL_FILE
from mlcore.bundle.predictor import Predictor
from mlcore.constants import CLASSES, NAIVE_FORECASTERS, ONE_WAY_FORECASTERS
from mlcore.evaluation import metrics
from mlcore.evaluation.bootstrap import RESAMPLES, Blocks, get_block_bars, get_cautious_block_bars
from mlcore.evaluation.context import EvaluationContext
from mlcore.evaluation.inspection import FAULTS, Inspection
from mlcore.features import labels
from mlcore.features.indicators import Schema

NOT_COMPARED: dict[str, Any] = dict.fromkeys(
    ("digest", "fit", "is_itself", "accuracy", "difference", "lower", "upper")
)


def measure_skill(context: EvaluationContext) -> dict[str, Any]:
    """Accuracy against every naive forecaster and against the baseline bundle, if there is one."""
    blocks = Blocks(len(context.hits), context.seed, get_block_bars(context.label.horizon))
    naive_hits = score_naive_forecasts(context)
    naive = {name: _compare(context.hits, hits, blocks) for name, hits in naive_hits.items()}
    return {
        "rows": blocks.rows,
        "block_bars": blocks.block_bars,
        "resamples": RESAMPLES,
        "accuracy": float(context.hits.mean()),
        "naive": naive,
        "best_naive": max(naive, key=lambda name: naive[name]["accuracy"]),
        "baseline": _compare_with_baseline(context, blocks),
    }


def measure_lead(context: EvaluationContext) -> dict[str, Any]:
    """Accuracy against every naive forecaster and against its own calls without direction, by the cautious interval; and how
    often each class occurs.

    The majority class of the judged window is right as often as the label's most frequent class occurs there: that is the
    label's base rate. It is known only afterwards, so a lead over it is none by luck in the choice of the class.
    Who knows when markets move, and tosses a coin for where, leads all of these; it does not lead its own calls with every
    move named down, or up.
    """
    blocks = Blocks(len(context.hits), context.seed, get_cautious_block_bars(context.label.horizon))
    others = score_naive_forecasts(context) | _score_one_way_forecasts(context)
    return {
        "rows": blocks.rows,
        "block_bars": blocks.block_bars,
        "resamples": RESAMPLES,
        "accuracy": float(context.hits.mean()),
        "label_shares": metrics.compute_shares(context.true),
        "over": {name: _estimate_lead(context.hits, hits, blocks) for name, hits in others.items()},
    }


def _estimate_lead(hits: np.ndarray, others: np.ndarray, blocks: Blocks) -> dict[str, Any]:
    found = blocks.estimate_cautiously(hits.astype(np.int8) - others.astype(np.int8), least=-1.0)
    return {
        "accuracy": float(others.mean()),
        "difference": found.point,
        "lower": found.lower,
        "upper": found.upper,
        "standard_error": found.standard_error,
    }


def _score_one_way_forecasts(context: EvaluationContext) -> dict[str, np.ndarray]:
    """The hits of the model's own calls with each move named down, and up, bool [n]."""
    moves = context.predicted != CLASSES.index("neutral")
    return {
        name: np.where(moves, CLASSES.index(name.removeprefix("all_")), context.predicted) == context.true
        for name in ONE_WAY_FORECASTERS
    }


def score_naive_forecasts(context: EvaluationContext) -> dict[str, np.ndarray]:
    """The hits of each naive forecaster, bool [n]."""
    true = context.true
    closes, rows = context.gate_closes
    moves = context.label.compute_last_moves(closes)[rows]
    forecasts = (
        np.bincount(true, minlength=len(CLASSES)).argmax(),
        labels.assign_classes(moves, context.cuts),
        labels.assign_classes(-moves, context.cuts),
    )
    return {name: forecast == true for name, forecast in zip(NAIVE_FORECASTERS, forecasts, strict=True)}


def _compare(hits: np.ndarray, others: np.ndarray, blocks: Blocks) -> dict[str, Any]:
    difference = blocks.estimate(hits.astype(np.int8) - others.astype(np.int8))
    return {
        "accuracy": float(others.mean()),
        "difference": difference.point,
        "lower": difference.lower,
        "upper": difference.upper,
    }


def _compare_with_baseline(context: EvaluationContext, blocks: Blocks) -> dict[str, Any]:
    """A baseline that cannot be run makes only this part fail."""
    if context.baseline_folder is None:
        return {**NOT_COMPARED, "problem": context.no_baseline}
    try:
        predictor = Predictor(context.baseline_folder)
        inspection = Inspection(context.baseline_folder, predictor.digest)
        model = predictor.manifest.files[MODEL_FILE]
        return {
            "digest": f"sha256:{model.sha256}",
            "fit": _require_same_fit(context, predictor),
            "is_itself": model == context.manifest.files.get(MODEL_FILE),
            **_compare_paired(context, inspection, predictor.schema, blocks),
            "problem": None,
        }
    except FAULTS as error:
        return {**NOT_COMPARED, "problem": f"the baseline: {error}"[:300]}


def _require_same_fit(context: EvaluationContext, baseline: Predictor) -> dict[str, Any]:
    """The baseline's fit window. Raises ValueError unless it is that of the candidate's training, candle for candle.

    Where the candles of the training are not known, the measured ones take their place.
    """
    examples = context.training or context.examples
    own, stated = (
        examples.window_with_digest(examples.split.fit),
        baseline.manifest.document["windows"]["fit"],
    )
    if baseline.manifest.label != context.label:
        raise ValueError(f"it predicts {baseline.manifest.label.text}, the candidate {context.label.text}")
    if stated != own:
        raise ValueError(
            f"it was fitted on {stated['rows']:,} other bars, {stated['first_at']} to {stated['last_at']}"
        )
    return own


def _compare_paired(
    context: EvaluationContext, baseline: Inspection, schema: Schema, blocks: Blocks
) -> dict[str, Any]:
    """On the gate rows that both can predict, by the candidate's classes: the baseline's cuts may differ."""
    examples = context.build_examples(context.frame, schema)
    rows = np.flatnonzero(np.isin(context.gate_bars, examples.bars, assume_unique=True))
    baseline_rows = np.searchsorted(examples.bars, context.gate_bars[rows])
    logits = baseline.compute_logits(examples.features[baseline_rows])
    if not np.isfinite(logits).all():
        raise ValueError("its predictions are not finite")
    if len(rows) != blocks.rows:
        blocks = Blocks(len(rows), context.seed, get_block_bars(context.label.horizon))
    return _compare(context.hits[rows], logits.argmax(axis=1) == context.true[rows], blocks)
