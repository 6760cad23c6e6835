"""What a bundle knows beyond forecasters that know nothing, and beyond the bundle it would replace.

Differences of hits on the same rows and the same resamples: a stretch that is easy for both moves neither bound.
"""

from typing import Any

import numpy as np

from mlcore.bundle.predictor import Predictor
from mlcore.constants import CLASSES
from mlcore.evaluation.bootstrap import RESAMPLES, Blocks
from mlcore.evaluation.context import EvaluationContext
from mlcore.evaluation.inspection import FAULTS
from mlcore.features import examples, labels

NOT_COMPARED: dict[str, Any] = dict.fromkeys(("digest", "accuracy", "difference", "lower", "upper"))


def measure_skill(context: EvaluationContext) -> dict[str, Any]:
    """Accuracy against every naive forecaster and, where one was given, a baseline bundle."""
    blocks = Blocks(len(context.hits), context.seed)
    forecasts = score_naive_forecasts(context)
    naive = {name: _compared(context.hits, hits, blocks) for name, hits in forecasts.items()}
    return {
        "rows": blocks.rows,
        "block_bars": blocks.block_bars,
        "resamples": RESAMPLES,
        "accuracy": float(context.hits.mean()),
        "naive": naive,
        "best_naive": max(naive, key=lambda name: naive[name]["accuracy"]),
        "baseline": _against_baseline(context, blocks),
    }


def score_naive_forecasts(context: EvaluationContext) -> dict[str, np.ndarray]:
    """Hits of: always the window's commonest class; the last H bars' move again; that move turned round."""
    true = context.true
    closes, rows = context.gate_closes
    moves = labels.compute_past_returns(closes)[rows]
    return {
        "majority": true == np.bincount(true, minlength=len(CLASSES)).argmax(),
        "last_move": labels.assign_classes(moves, context.cuts) == true,
        "reversal": labels.assign_classes(-moves, context.cuts) == true,
    }


def _compared(hits: np.ndarray, others: np.ndarray, blocks: Blocks) -> dict[str, Any]:
    difference = blocks.estimate(hits.astype(np.int8) - others.astype(np.int8))
    return {
        "accuracy": float(others.mean()),
        "difference": difference.point,
        "lower": difference.lower,
        "upper": difference.upper,
    }


def _against_baseline(context: EvaluationContext, blocks: Blocks) -> dict[str, Any]:
    """A baseline that cannot be run takes only its own part down."""
    if context.baseline_folder is None:
        return {**NOT_COMPARED, "problem": "no baseline was given"}
    try:
        predictor = Predictor(context.baseline_folder)
        return {"digest": predictor.digest, **_paired(context, predictor, blocks), "problem": None}
    except FAULTS as error:
        return {**NOT_COMPARED, "problem": f"the baseline: {error}"[:300]}


def _paired(context: EvaluationContext, baseline: Predictor, blocks: Blocks) -> dict[str, Any]:
    """On the gate rows that both can predict, by the candidate's classes: the baseline's own cuts may differ."""
    others = context.build_examples(baseline.schema)
    row_of_bar = np.full(context.frame.height, -1)
    row_of_bar[others.bars] = np.arange(len(others.bars))
    theirs = row_of_bar[context.gate_bars]
    ours, theirs = np.flatnonzero(theirs >= 0), theirs[theirs >= 0]
    logits = baseline.logits(examples.take_rows(others.features, theirs))
    if not np.isfinite(logits).all():
        raise ValueError("its predictions are not finite")
    if len(ours) != blocks.rows:
        blocks = Blocks(len(ours), context.seed)
    return _compared(context.hits[ours], logits.argmax(axis=1) == context.true[ours], blocks)
