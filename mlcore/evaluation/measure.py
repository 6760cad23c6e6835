"""Measures a bundle's bytes on a dataset: every figure that a gate decides by or a page draws.

    python -m mlcore.evaluation.measure --bundle DIR --candles FILE.canonical --digest sha256:… --output FILE.json

Runs in a process that did not train, through the bot's own Predictor, without torch. A bundle that is broken is
measured as far as it can be; what could not be is null, and `problem` says why. Gates take null for an error.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl

from mlcore import parallel
from mlcore.data import candles
from mlcore.errors import CandlesRefused
from mlcore.evaluation import lookahead, metrics, provenance, serving, skill, stability
from mlcore.evaluation.context import EvaluationContext
from mlcore.evaluation.inspection import FAULTS, Inspection

FORMAT = 1

_LIBRARIES = ("numpy", "polars", "onnxruntime", "onnx", "safetensors")
_UNMEASURED: dict[str, Any] = {
    "single_sample": dict.fromkeys(
        ("rows", "runs", "largest_difference", "largest_excess", "windows_compared", "problem")
    ),
    "confidence": dict.fromkeys(("shares_over", "mean", "histogram")),
    "shares": dict.fromkeys(("down", "neutral", "up")),
    "logits": dict.fromkeys(("least", "greatest", "histogram")),
    "accuracy": dict.fromkeys(
        (
            "rows", "point", "lower", "upper", "standard_error", "block_bars", "resamples", "majority", "last_move",
        )
    ),
    "confusion": None,
    "reliability": None,
    "window": dict.fromkeys(("first_at", "last_at", "rows", "fit_last_at")),
    "problem": None,
}  # fmt: skip

_Section = tuple[Callable[[EvaluationContext], dict[str, Any]], tuple[str, ...]]
_SECTIONS: dict[str, _Section] = {
    "skill": (
        skill.measure_skill,
        ("rows", "block_bars", "resamples", "accuracy", "naive", "best_naive", "baseline"),
    ),
    "windows": (
        provenance.measure_windows,
        (
            "horizon_bars",
            "interval_seconds",
            "gate",
            "fit",
            "stop",
            "on_training_candles",
            "recomputed",
            "rows_shared",
        ),
    ),
    "schema": (
        provenance.measure_schema,
        ("name", "digest_matches", "names_match", "statistics_match", "columns_out_of_place"),
    ),
    "reload": (
        provenance.measure_reload,
        ("reported", "recomputed", "largest_difference", "cuts_match", "weights_equal_in_graph"),
    ),
    "lookahead": (lookahead.measure_lookahead, ("rows", "columns_differing", "largest_difference")),
    "calibration": (
        lambda context: metrics.compute_calibration(context.probabilities, context.true),
        ("ece", "brier", "bins", "rows"),
    ),
    "stability": (stability.measure_stability, ("months", "volatility")),
    "drift": (stability.measure_drift, ("recent_rows", "fit_rows", "psi", "largest", "over")),
}
"""Sections that stand for themselves: each with its figures, all null where it fails, and `problem` with the reason.
The longest come first, so that no core waits for one at the end."""

_TIMED: dict[str, _Section] = {"latency": (serving.measure_latency, ("rows", "p50_ms", "p99_ms"))}
"""The same, measured while nothing else runs here."""


def measure(
    folder: Path,
    frame: pl.DataFrame,
    *,
    expected_digest: str,
    seed: int = 0,
    baseline: Path | None = None,
    training_frame: pl.DataFrame | None = None,
) -> dict[str, Any]:
    """All figures as JSON values; one that is not finite is null, with the word for it under `non_finite`.

    `baseline` is the folder of the bundle that would otherwise serve. `training_frame` are the candles that the
    manifest names; needed only where `frame` is not those. Never raises for a bad bundle.
    """
    start = perf_counter()
    inspection = Inspection(folder, expected_digest)
    context = EvaluationContext(inspection, frame, training_frame, baseline, seed)
    context.prepare()
    found = {
        "format": FORMAT,
        **_names(inspection),
        "bundle_digest": expected_digest,
        "dataset_digest": context.dataset_digest,
        **context.files,
        **_UNMEASURED,
    }
    parts: tuple[Callable[[], dict[str, Any]], ...] = (
        partial(_behaviour, context),
        *(partial(_section, context, *named) for named in _SECTIONS.items()),
        _libraries,
    )
    for part in parallel.thread_map(lambda measured: measured(), parts):
        found |= part
    for named in _TIMED.items():
        found |= _section(context, *named)
    return replace_non_finite({**found, "seconds": perf_counter() - start})


def _libraries() -> dict[str, dict[str, str]]:
    return {"libraries": {name: version(name) for name in _LIBRARIES}}


def _section(context: EvaluationContext, name: str, section: _Section) -> dict[str, dict[str, Any]]:
    measured, figures_of = section
    try:
        return {name: {"problem": None, **measured(context)}}
    except (*FAULTS, ArithmeticError) as error:  # a manifest may claim numbers beyond what a float holds
        return {name: {**dict.fromkeys(figures_of), "problem": f"{type(error).__name__}: {error}"[:300]}}


def replace_non_finite(tree: dict[str, Any]) -> dict[str, Any]:
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


def _behaviour(context: EvaluationContext) -> dict[str, Any]:
    """What the bundle does on the gate window; parts already found stand if a later one fails."""
    found: dict[str, Any] = {}
    try:
        found.update(_behaviours(context))
    except FAULTS as error:
        found["problem"] = f"{type(error).__name__}: {error}"
    return found


def _behaviours(context: EvaluationContext) -> Iterator[tuple[str, Any]]:
    found = context.examples
    gate, fit = found.window(found.split.gate), found.window(found.split.fit)
    yield "window", {**gate, "fit_last_at": fit["last_at"]}
    yield "logits", metrics.compute_logit_range(context.logits)
    yield "single_sample", serving.measure_single_sample(context)
    yield "confidence", metrics.compute_confidence(context.probabilities)
    yield "shares", metrics.compute_shares(context.predicted)
    naive = skill.score_naive_forecasts(context)
    yield (
        "accuracy",
        {
            **metrics.compute_accuracy(context.hits, context.seed),
            **{name: float(naive[name].mean()) for name in ("majority", "last_move")},
        },
    )
    yield "confusion", metrics.compute_confusion(context.true, context.predicted)
    yield "reliability", metrics.compute_reliability(context.probabilities, context.hits)


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        frame = candles.decode_canonical(options.candles.read_bytes())
        training = options.training and candles.decode_canonical(options.training.read_bytes())
    except (OSError, CandlesRefused) as error:
        print(f"measure: {error}", file=sys.stderr)  # noqa: T201 - the command's own voice
        return 2
    found = measure(
        options.bundle,
        frame,
        expected_digest=options.digest,
        seed=options.seed,
        baseline=options.baseline,
        training_frame=training,
    )
    unfinished = options.output.with_name(f".{options.output.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(found, allow_nan=False))
    unfinished.replace(options.output)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mlcore.evaluation.measure", description="Measure a bundle's bytes."
    )
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--candles", type=Path, required=True, help="candles in canonical form")
    parser.add_argument("--digest", required=True, help="the digest the bundle must have, sha256:…")
    parser.add_argument("--baseline", type=Path, help="the folder of the bundle it would replace")
    parser.add_argument(
        "--training",
        type=Path,
        help="the candles it was trained on, in canonical form, where they are others",
    )
    parser.add_argument("--output", type=Path, required=True, help="where the JSON goes")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser


if __name__ == "__main__":
    sys.exit(main())
