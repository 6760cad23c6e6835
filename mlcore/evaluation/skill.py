"""What a bundle knows beyond forecasters that know nothing, and beyond the bundle it would replace.

Differences of hits on the same rows and the same resamples: a stretch that is easy for both moves neither bound.
"""

from typing import Any

import numpy as np

from mlcore.bundle.format import CLASSES
from mlcore.bundle.predictor import Predictor
from mlcore.evaluation.bootstrap import RESAMPLES, Blocks
from mlcore.evaluation.context import Subject
from mlcore.evaluation.inspection import FAULTS
from mlcore.features import examples, labels

NOT_COMPARED: dict[str, Any] = dict.fromkeys(("digest", "accuracy", "difference", "lower", "upper"))


def skill(subject: Subject) -> dict[str, Any]:
    """Accuracy against every naive forecaster and, where one was given, a baseline bundle."""
    blocks = Blocks(len(subject.hits), subject.seed)
    forecasts = naive_forecasts(subject)
    naive = {name: _compared(subject.hits, hits, blocks) for name, hits in forecasts.items()}
    return {
        "rows": blocks.rows,
        "block_bars": blocks.block_bars,
        "resamples": RESAMPLES,
        "accuracy": float(subject.hits.mean()),
        "naive": naive,
        "best_naive": max(naive, key=lambda name: naive[name]["accuracy"]),
        "baseline": _against_baseline(subject, blocks),
    }


def naive_forecasts(subject: Subject) -> dict[str, np.ndarray]:
    """Hits of: always the window's commonest class; the last H bars' move again; that move turned round."""
    true = subject.true
    closes, rows = subject.gate_closes
    moves = labels.scaled_last_return(closes)[rows]
    return {
        "majority": true == np.bincount(true, minlength=len(CLASSES)).argmax(),
        "last_move": labels.label(moves, subject.cuts) == true,
        "reversal": labels.label(-moves, subject.cuts) == true,
    }


def _compared(hits: np.ndarray, others: np.ndarray, blocks: Blocks) -> dict[str, Any]:
    difference = blocks.estimate(hits.astype(np.int8) - others.astype(np.int8))
    return {
        "accuracy": float(others.mean()),
        "difference": difference.point,
        "lower": difference.lower,
        "upper": difference.upper,
    }


def _against_baseline(subject: Subject, blocks: Blocks) -> dict[str, Any]:
    """A baseline that cannot be run takes only its own part down."""
    if subject.baseline_folder is None:
        return {**NOT_COMPARED, "problem": "no baseline was given"}
    try:
        predictor = Predictor(subject.baseline_folder)
        return {"digest": predictor.digest, **_paired(subject, predictor, blocks), "problem": None}
    except FAULTS as error:
        return {**NOT_COMPARED, "problem": f"the baseline: {error}"[:300]}


def _paired(subject: Subject, baseline: Predictor, blocks: Blocks) -> dict[str, Any]:
    """On the gate rows that both can predict, by the candidate's classes: the baseline's own cuts may differ."""
    others = subject.examples_of(baseline.schema)
    row_of_bar = np.full(subject.frame.height, -1)
    row_of_bar[others.bars] = np.arange(len(others.bars))
    theirs = row_of_bar[subject.gate_bars]
    ours, theirs = np.flatnonzero(theirs >= 0), theirs[theirs >= 0]
    logits = baseline.logits(examples.taken(others.features, theirs))
    if not np.isfinite(logits).all():
        raise ValueError("its predictions are not finite")
    if len(ours) != blocks.rows:
        blocks = Blocks(len(ours), subject.seed)
    return _compared(subject.hits[ours], logits.argmax(axis=1) == subject.true[ours], blocks)
