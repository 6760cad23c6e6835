"""The V5 that a candidate is compared with: fitted by its recipe on the candidate's own candles, windows and label.

    python -m mlcore.evaluation.v5 --candles FILE.canonical --coin BTC --code-version V --output DIR

The same candles, windows and recipe give the same bytes, so a candidate gets the same figure wherever it is measured.
"""

import argparse
import json
import sys
from pathlib import Path

import polars as pl

from mlcore.bundle.format import Bundle
from mlcore.bundle.writer import write_bundle
from mlcore.data import candles
from mlcore.features.examples import build_examples
from mlcore.features.terms import DEFAULT_TERMS, Terms
from mlcore.fitting.prepared import prepare_examples
from mlcore.fitting.recipes import build_baseline_recipe

SEED = 0
"""Stated in the manifest; the regression draws nothing."""


def fit_baseline(
    folder: Path,
    frame: pl.DataFrame,
    *,
    coin: str,
    simulated: bool,
    code_version: str,
    terms: Terms = DEFAULT_TERMS,
) -> Bundle:
    """Writes the bundle of a V5 that was fitted on the fit window of these candles, which is that of the candidate.

    Raises NotEnoughBars for too few rows, BundleRefused if the folder cannot be written.
    """
    from mlcore.fitting.logistic import fit_logistic  # with it comes scikit-learn

    recipe = build_baseline_recipe(terms)
    examples = build_examples(frame, recipe.input, terms.label, terms.shares, warm_up=terms.warm_up)
    trained = fit_logistic(prepare_examples(examples), recipe, seed=SEED)
    return write_bundle(
        folder,
        trained,
        coin=coin,
        dataset_digest=candles.compute_digest(frame),
        simulated=simulated,
        code_version=code_version,
    )


def main(arguments: list[str] | None = None) -> int:
    options = _build_parser().parse_args(arguments)
    try:
        fit_baseline(
            options.output,
            candles.decode_canonical(options.candles.read_bytes()),
            coin=options.coin,
            simulated=options.simulated,
            code_version=options.code_version,
            terms=Terms.parse(json.loads(options.terms)) if options.terms else DEFAULT_TERMS,
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        print(f"v5: {error}", file=sys.stderr)  # noqa: T201 - a command may print
        return 2
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mlcore.evaluation.v5", description="Fit a baseline.")
    parser.add_argument("--candles", type=Path, required=True, help="candles in canonical form")
    parser.add_argument("--coin", required=True)
    parser.add_argument("--simulated", action="store_true", help="whether the candles are simulated")
    parser.add_argument("--code-version", required=True)
    parser.add_argument("--terms", help="the candidate's label, split and warm-up, as JSON")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the bundle, which is made")
    return parser


if __name__ == "__main__":
    sys.exit(main())
