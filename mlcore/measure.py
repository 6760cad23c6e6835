"""Measures a bundle's bytes on a dataset: every figure that a gate decides by or a page draws.

    python -m mlcore.measure --bundle DIR --candles FILE.canonical --digest sha256:… --output FILE.json

Runs in a process that did not train, through the bot's own Predictor, without torch. A bundle that is broken is
measured as far as it can be; what could not be is null, and `problem` says why. Gates take null for an error.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl

from mlcore import candles, examples, features, figures, labels
from mlcore.errors import BundleRefused, CandlesRefused
from mlcore.examples import Examples
from mlcore.inspection import FAULTS, Inspection
from mlcore.predictor import Predictor, softmax

FORMAT = 1
SINGLE_ROWS = 512
TOLERANCE = 1e-5
"""A single row may differ from the batch by TOLERANCE + TOLERANCE · |logit|."""

_LIBRARIES = ("numpy", "polars", "onnxruntime", "onnx", "safetensors")
_UNMEASURED: dict[str, Any] = {
    "single_sample": dict.fromkeys(
        ("rows", "runs", "largest_difference", "largest_excess", "windows_compared", "problem")
    ),
    "confidence": dict.fromkeys(("shares_over", "mean", "histogram")),
    "shares": dict.fromkeys(("down", "neutral", "up")),
    "logits": dict.fromkeys(("least", "greatest", "histogram")),
    "accuracy": dict.fromkeys(
        ("rows", "point", "lower", "upper", "block_bars", "resamples", "majority", "last_move")
    ),
    "confusion": None,
    "reliability": None,
    "window": dict.fromkeys(("first_at", "last_at", "rows", "fit_last_at")),
    "problem": None,
}


def measure(folder: Path, frame: pl.DataFrame, *, expected_digest: str, seed: int = 0) -> dict[str, Any]:
    """All figures as JSON values; one that is not finite is null, with the word for it under `non_finite`.

    Never raises for a bad bundle.
    """
    start = perf_counter()
    inspection = Inspection(folder, expected_digest)
    figures_found = {
        "format": FORMAT,
        **_names(inspection),
        "bundle_digest": expected_digest,
        "dataset_digest": candles.digest(frame),
        "bundle": inspection.bundle_part(),
        "scaler": inspection.scaler_part(),
        "weights": inspection.weights_part(),
        **_UNMEASURED,
    }
    try:
        figures_found.update(_behaviour(inspection, frame, seed))
    except FAULTS as error:
        figures_found["problem"] = f"{type(error).__name__}: {error}"
    libraries = {name: version(name) for name in _LIBRARIES}
    return storable({**figures_found, "seconds": perf_counter() - start, "libraries": libraries})


def storable(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree without NaN and infinities, which databases refuse: null instead, and the word beside it."""
    words: dict[str, str] = {}
    return {**_finite(tree, "", words), "non_finite": words}


def _finite(value: Any, path: str, words: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item, f"{path}.{key}" if path else key, words) for key, item in value.items()}
    if isinstance(value, float) and not np.isfinite(value):
        words[path] = str(value)
        return None
    return value


def _names(inspection: Inspection) -> dict[str, Any]:
    if inspection.bundle is None:
        return dict.fromkeys(("coin", "line", "simulated", "trained_on"))
    manifest = inspection.bundle.manifest
    return {
        "coin": manifest.coin,
        "line": manifest.line,
        "simulated": manifest.is_simulated,
        "trained_on": manifest.dataset_digest,
    }


def _behaviour(inspection: Inspection, frame: pl.DataFrame, seed: int) -> Iterator[tuple[str, Any]]:
    """What the bundle does on the gate window; parts already found stand if a later one fails."""
    predictor = inspection.predictor
    if predictor is None:
        raise BundleRefused("the bundle does not load, so nothing it does could be measured")
    gathered = examples.gather(frame, predictor.schema)
    gate = gathered.split.gate
    yield "window", {**gathered.window(gate), "fit_last_at": gathered.window(gathered.split.fit)["last_at"]}
    logits = predictor.logits(gathered.features[gate])
    yield "logits", figures.logits(logits)
    yield "single_sample", _single_sample(predictor, frame, gathered, logits)
    broken = int((~np.isfinite(logits).all(axis=1)).sum())
    if broken:
        raise BundleRefused(f"{broken:,} of {len(logits):,} predictions are not finite: they have no class")
    yield from _judged(softmax(logits), frame, gathered, _cuts_of(predictor, gathered), seed)


def _cuts_of(predictor: Predictor, gathered: Examples) -> tuple[float, float]:
    """Where its classes were cut in training; where nobody knows, the terciles of these candles' own fit window."""
    return predictor.manifest.cuts or labels.cuts(gathered.scaled_returns[gathered.split.fit])


def _judged(
    probabilities: np.ndarray, frame: pl.DataFrame, gathered: Examples, cuts: tuple[float, float], seed: int
) -> Iterator[tuple[str, Any]]:
    gate = gathered.split.gate
    predicted = probabilities.argmax(axis=1)
    true = labels.label(gathered.scaled_returns[gate], cuts)
    last_moves = labels.scaled_last_return(frame["close"].to_numpy())[gathered.bars[gate]]
    hits = predicted == true
    yield "confidence", figures.confidence(probabilities)
    yield "shares", figures.shares(predicted)
    yield (
        "accuracy",
        {
            **figures.accuracy(hits, seed),
            "majority": float(np.bincount(true).max() / len(true)),
            "last_move": float((labels.label(last_moves, cuts) == true).mean()),
        },
    )
    yield "confusion", figures.confusion(true, predicted)
    yield "reliability", figures.reliability(probabilities, hits)


def _single_sample(
    predictor: Predictor, frame: pl.DataFrame, gathered: Examples, batch: np.ndarray
) -> dict[str, Any]:
    """Rows one at a time, as the bot asks, each from exactly the lookback's bars, against the batch."""
    bars = gathered.bars[gathered.split.gate]
    lookback = predictor.schema.lookback
    able = np.flatnonzero(bars >= lookback - 1)
    chosen = able[np.linspace(0, len(able) - 1, min(SINGLE_ROWS, len(able))).astype(int)]
    part = {**_UNMEASURED["single_sample"], "rows": len(chosen), "windows_compared": len(chosen)}
    if not len(chosen):
        return {**part, "problem": f"no row of the gate window has {lookback:,} bars before it"}
    try:
        singles = [
            predictor.logits(features.latest(frame.slice(bar - lookback + 1, lookback), predictor.schema))
            for bar in bars[chosen].tolist()
        ]
    except FAULTS as error:
        return {**part, "runs": False, "problem": str(error)}
    wide = batch[chosen].astype(np.float64)
    with np.errstate(invalid="ignore"):  # between infinities there is no difference, and none is reported
        difference = np.abs(np.concatenate(singles).astype(np.float64) - wide)
        excess = difference - (TOLERANCE + TOLERANCE * np.abs(wide))
    return {
        **part,
        "runs": True,
        "largest_difference": float(difference.max()),
        "largest_excess": float(excess.max()),
    }


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        frame = candles.from_canonical(options.candles.read_bytes())
    except (OSError, CandlesRefused) as error:
        print(f"measure: {error}", file=sys.stderr)  # noqa: T201 - the command's own voice
        return 2
    found = measure(options.bundle, frame, expected_digest=options.digest, seed=options.seed)
    unfinished = options.output.with_name(f".{options.output.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(found, allow_nan=False))
    unfinished.replace(options.output)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mlcore.measure", description="Measure a bundle's bytes.")
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--candles", type=Path, required=True, help="candles in canonical form")
    parser.add_argument("--digest", required=True, help="the digest the bundle must have, sha256:…")
    parser.add_argument("--output", type=Path, required=True, help="where the JSON goes")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser


if __name__ == "__main__":
    sys.exit(main())
