"""Measures a bundle on a dataset: every figure that a gate decides by or a page draws.

    python -m mlcore.evaluation.measure --bundle DIR --candles FILE.canonical --digest sha256:… --output FILE.json

It runs in a process that did not train, with the bot's own Predictor, without torch. A broken bundle is measured as far
as possible. What cannot be measured is null, `problem` says why, and gates report an error.
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
from mlcore.constants import CLASSES
from mlcore.data import candles
from mlcore.errors import CandlesRefused
from mlcore.evaluation import lookahead, metrics, provenance, reproduction, serving, skill, stability
from mlcore.evaluation.bootstrap import get_cautious_block_bars
from mlcore.evaluation.context import EvaluationContext
from mlcore.evaluation.inspection import FAULTS, Inspection

FORMAT = 1

_LIBRARIES = ("numpy", "polars", "onnxruntime", "onnx", "safetensors")
_NAIVE_IN_ACCURACY = ("majority", "last_move")
_Section = tuple[Callable[[EvaluationContext], dict[str, Any]], str]
_SECTIONS: dict[str, _Section] = {
    "skill": (skill.measure_skill, "rows block_bars resamples accuracy naive best_naive baseline"),
    "lead": (skill.measure_lead, "rows block_bars resamples accuracy label_shares over"),
    "windows": (
        provenance.measure_windows,
        "horizon_bars interval_seconds gate fit stop on_training_candles recomputed rows_shared",
    ),
    "schema": (
        provenance.measure_schema,
        "name digest_matches names_match statistics_match columns_out_of_place",
    ),
    "reload": (
        provenance.measure_reload,
        "reported recomputed largest_difference cuts_match weights_equal_in_graph",
    ),
    "reproduction": (
        reproduction.measure_reproduction,
        "bundle files_equal rows largest_difference directions_differing",
    ),
    "lookahead": (lookahead.measure_lookahead, "rows columns_differing largest_difference"),
    "label": (provenance.measure_label, "text input kind horizon_bars cut cuts shares"),
    "calibration": (
        lambda context: metrics.compute_calibration(context.probabilities, context.true),
        "ece brier bins rows",
    ),
    "stability": (stability.measure_stability, "months volatility"),
    "drift": (stability.measure_drift, "recent_rows fit_rows psi largest over"),
}
"""Independent sections with their figures. If one fails, its figures are null and `problem` holds the reason. The longest
come first, so that no core waits for one at the end."""

_TIMED: dict[str, _Section] = {"latency": (serving.measure_latency, "rows p50_ms p99_ms")}
"""The same, measured while nothing else runs in this process."""

_BEHAVIOUR = {
    "single_sample": "rows runs largest_difference largest_excess windows_compared problem",
    "confidence": "shares_over mean histogram",
    "shares": " ".join(CLASSES),
    "logits": "least greatest histogram",
    "accuracy": "rows point lower upper standard_error block_bars resamples majority last_move",
    "window": "first_at last_at rows fit_last_at",
}
"""The parts that `_iterate_behaviour` measures, with their figures."""


def measure(
    folder: Path,
    frame: pl.DataFrame,
    *,
    expected_digest: str,
    seed: int = 0,
    baseline: Path | None = None,
    no_baseline: str = "no baseline was given",
    second: Path | None = None,
    training_frame: pl.DataFrame | None = None,
    judges_stop_window: bool = False,
) -> dict[str, Any]:
    """All figures as JSON values. One that is not finite is null, and `non_finite` holds its name and value.

    `baseline` is the folder of the V5 that its skill is compared with (`v5`); without one, `no_baseline` says why.
    `second` is the folder of the bundle that a second training of it gave.
    `training_frame` holds the candles that the manifest names; it is needed only if `frame` holds others. With
    `judges_stop_window`, the figures are those of the stop window instead of the gate window. Never raises for a bad bundle.
    """
    start = perf_counter()
    inspection = Inspection(folder, expected_digest)
    context = EvaluationContext(
        inspection, frame, training_frame, baseline, no_baseline, second, seed, judges_stop_window
    )
    context.precompute()
    document = {
        "format": FORMAT,
        **_describe_bundle(inspection),
        "bundle_digest": expected_digest,
        "dataset_digest": context.dataset_digest,
        **context.files,
        **{name: dict.fromkeys(figures.split()) for name, figures in _BEHAVIOUR.items()},
        **dict.fromkeys(("confusion", "reliability", "problem")),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }
    sections = [partial(_measure_section, context, *section) for section in _SECTIONS.items()]
    for part in parallel.run_all(partial(_measure_behaviour, context), *sections):
        document |= part
    for section in _TIMED.items():
        document |= _measure_section(context, *section)
    return replace_non_finite({**document, "seconds": perf_counter() - start})


def _measure_section(context: EvaluationContext, name: str, section: _Section) -> dict[str, dict[str, Any]]:
    function, figures = section
    try:
        return {name: {"problem": None, **function(context)}}
    except (*FAULTS, ArithmeticError) as error:  # a manifest may claim numbers beyond what a float holds
        return {name: {**dict.fromkeys(figures.split()), "problem": f"{type(error).__name__}: {error}"[:300]}}


def replace_non_finite(tree: dict[str, Any]) -> dict[str, Any]:
    """Databases refuse NaN and infinities: they become null, and `non_finite` holds {path: value as text}."""
    values: dict[str, str] = {}
    return {**_replace(tree, "", values), "non_finite": values}


def _replace(node: Any, path: str, values: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _replace(item, f"{path}.{key}" if path else key, values) for key, item in node.items()}
    if isinstance(node, float) and not np.isfinite(node):
        values[path] = str(node)
        return None
    return node


def _describe_bundle(inspection: Inspection) -> dict[str, Any]:
    manifest = inspection.bundle and inspection.bundle.manifest
    return {
        "coin": manifest and manifest.coin,
        "line": manifest and manifest.line,
        "simulated": manifest and manifest.is_simulated,
        "trained_on": manifest and manifest.dataset_digest,
    }


def _measure_behaviour(context: EvaluationContext) -> dict[str, Any]:
    """The predictions on the gate window. Parts that were measured remain if a later one fails."""
    parts: dict[str, Any] = {}
    try:
        parts.update(_iterate_behaviour(context))
    except FAULTS as error:
        parts["problem"] = f"{type(error).__name__}: {error}"
    return parts


def _iterate_behaviour(context: EvaluationContext) -> Iterator[tuple[str, Any]]:
    examples = context.examples
    gate, fit = examples.window(examples.split.gate), examples.window(examples.split.fit)
    yield "window", {**gate, "fit_last_at": fit["last_at"]}
    yield "single_sample", serving.measure_single_sample(context)
    yield "logits", metrics.compute_logit_range(context.logits)
    yield "confidence", metrics.compute_confidence(context.probabilities)
    yield "shares", metrics.compute_shares(context.predicted)
    hits = skill.score_naive_forecasts(context)
    naive = {name: float(hits[name].mean()) for name in _NAIVE_IN_ACCURACY}
    block_bars = get_cautious_block_bars(context.label.horizon)
    yield "accuracy", {**metrics.compute_accuracy(context.hits, context.seed, block_bars), **naive}
    yield "confusion", metrics.compute_confusion(context.true, context.predicted)
    yield "reliability", metrics.compute_reliability(context.probabilities, context.hits)


def main(arguments: list[str] | None = None) -> int:
    options = _build_parser().parse_args(arguments)
    try:
        frame = candles.decode_canonical(options.candles.read_bytes())
        training = options.training and candles.decode_canonical(options.training.read_bytes())
    except (OSError, CandlesRefused) as error:
        print(f"measure: {error}", file=sys.stderr)  # noqa: T201 - a command may print
        return 2
    document = measure(
        options.bundle,
        frame,
        expected_digest=options.digest,
        seed=options.seed,
        baseline=options.baseline,
        no_baseline=options.no_baseline,
        second=options.second,
        training_frame=training,
    )
    unfinished = options.output.with_name(f".{options.output.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(document, allow_nan=False))
    unfinished.replace(options.output)
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mlcore.evaluation.measure", description="Measure a bundle."
    )
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--candles", type=Path, required=True, help="candles in canonical form")
    parser.add_argument("--digest", required=True, help="the digest the bundle must have, sha256:…")
    parser.add_argument("--baseline", type=Path, help="the folder of a V5 of its own candles and windows")
    parser.add_argument("--no-baseline", default="no baseline was given", help="why there is none")
    parser.add_argument("--second", type=Path, help="the folder of the bundle that a second training gave")
    parser.add_argument(
        "--training", type=Path, help="the candles of its training, in canonical form, if they are others"
    )
    parser.add_argument("--output", type=Path, required=True, help="where the JSON goes")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser


if __name__ == "__main__":
    sys.exit(main())
