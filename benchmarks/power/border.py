"""How often the accuracy gate passes forecasters that are not good enough: right in exactly 0.65 of all bars.

What decides is how their errors come. Each forecaster below is calibrated on a long market, which is then
cut into gate windows; every window is measured and judged as a release would be.
"""

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from gates.evaluation import evaluate
from gates.policy import BASELINE_POLICY, FORMAT
from mlcore.bundle.predictor import Predictor
from mlcore.bundle.writer import write_bundle
from mlcore.data import candles
from mlcore.data.simulate import DEFAULT_DRIFT, DEMO_BARS, draw_hidden_regimes, simulate
from mlcore.evaluation import metrics
from mlcore.features import examples, labels
from mlcore.fitting.fit import fit, prepare
from mlcore.fitting.recipes import RECIPES
from mlcore.verdict import Verdict

TRUE_ACCURACY = 0.65
ALLOWED = 0.05
WINDOW_ROWS = {"24,000 bars": 3_600, "five years of hours": 6_500}
"""Gate windows as the demo's market has them, and as an hourly history of five years."""
MARKET_BARS = 300_000
MARKETS = 40

NETWORK_DRIFT = 0.9
"""A network finds about 0.68 here: little has to be spoiled to bring it to the border."""

BEYOND = "always right, or wrong for 72 bars on average"
"""Errors that outlast the simulator's regimes, of up to 300 bars: shown, not promised."""

_FIRST_SEED = 5_000

Hits = np.ndarray
"""bool [bars]: where a forecaster is right."""


def judge_border(market: int, bars: int = MARKET_BARS) -> dict[str, dict[str, list[int]]]:
    """{forecaster: {window: [windows that passed, windows]}} on the market of that number."""
    return {
        name: {window: _tally(hits, rows) for window, rows in WINDOW_ROWS.items()}
        for name, hits in forecasters(bars, _FIRST_SEED + market)
    }


def _tally(hits: Hits, rows: int) -> list[int]:
    starts = range(0, len(hits) - rows + 1, rows)
    return [sum(passes(hits[start : start + rows]) for start in starts), len(starts)]


def passes(hits: Hits) -> bool:
    """Whether the accuracy gate, as every policy has it, lets a window of these hits through."""
    label = {"problem": None, "horizon_bars": labels.HORIZON_BARS}
    document = {"format": FORMAT, "label": label, "accuracy": metrics.compute_accuracy(hits, seed=0)}
    outcomes = evaluate(document, BASELINE_POLICY)
    return any(found.gate == "accuracy" and found.verdict is Verdict.PASSED for found in outcomes)


def forecasters(bars: int, seed: int) -> Iterator[tuple[str, Hits]]:
    """Each kind's hits on a market of its own, right in TRUE_ACCURACY of the bars."""
    random = np.random.default_rng(seed)
    regimes, truth = _market(bars, seed)
    # In the middle of what a label looks at, the regime tells most of it.
    oracle = np.roll(regimes, -labels.HORIZON_BARS // 2) + 1 == truth
    guesses = random.integers(3, size=len(truth)) == truth
    right, wrong = np.ones(len(truth), bool), np.zeros(len(truth), bool)
    for mean_bars in (1, 8, 24):
        name = f"reads the regime, guesses for {mean_bars} bar{'s' if mean_bars > 1 else ''} on average"
        yield name, _lowered(oracle, guesses, _stretches(random, len(truth), mean_bars), random)
    whole = np.concatenate([[0], np.cumsum(np.diff(regimes) != 0)])
    yield "reads the regime, guesses for whole regimes", _lowered(oracle, guesses, whole, random)
    yield "reads the regime, wrong for whole regimes", _lowered(oracle, wrong, whole, random)
    yield "always right, or wrong for whole regimes", _lowered(right, wrong, whole, random)
    yield BEYOND, _lowered(right, wrong, _stretches(random, len(truth), 72), random)
    network, guesses = _network_hits(bars, seed, random)
    yield (
        "a trained network, guesses for single bars",
        _lowered(network, guesses, np.arange(len(network)), random),
    )


def _market(bars: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Regime and true class of every bar that has a label."""
    close = simulate("BTC", bars, DEFAULT_DRIFT, seed)["close"].to_numpy()
    scaled = labels.compute_forward_returns(close)
    usable = np.isfinite(scaled)
    truth = labels.assign_classes(scaled[usable], labels.compute_cuts(scaled[usable]))
    return draw_hidden_regimes("BTC", bars, seed)[usable], truth


def _stretches(random: np.random.Generator, bars: int, mean_bars: int) -> np.ndarray:
    """A number for each bar, the same for all bars of a stretch; lengths are geometric."""
    return np.concatenate([[0], np.cumsum(random.random(bars - 1) < 1 / mean_bars)])


def _lowered(better: Hits, worse: Hits, stretches: np.ndarray, random: np.random.Generator) -> Hits:
    """`worse` instead of `better` in as many stretches, drawn at random, as bring the accuracy to the border."""
    rank = random.permutation(stretches[-1] + 1)[stretches]
    lost, kept = 0, int(rank.max()) + 1
    while kept - lost > 1:
        middle = (lost + kept) // 2
        is_good_enough = np.where(rank < middle, worse, better).mean() >= TRUE_ACCURACY
        lost, kept = (middle, kept) if is_good_enough else (lost, middle)
    return np.where(rank < lost, worse, better)


def _network_hits(bars: int, seed: int, random: np.random.Generator) -> tuple[Hits, Hits]:
    """Where a network is right on a market that it never saw, and where a guess would be."""
    predictor, cuts = _network()
    gathered = examples.build_examples(simulate("BTC", bars, NETWORK_DRIFT, seed), predictor.schema)
    truth = labels.assign_classes(gathered.scaled_returns, cuts)
    return predictor.logits(gathered.features).argmax(axis=1) == truth, random.integers(
        3, size=len(truth)
    ) == truth


@cache
def _network() -> tuple[Predictor, tuple[float, float]]:
    """v7_fixed, trained on a market of the demo's size."""
    frame = simulate("BTC", DEMO_BARS, NETWORK_DRIFT, seed=1)
    recipe = RECIPES["v7_fixed"].with_parameters(batch_size=256)
    trained = fit(prepare(frame, recipe), recipe, seed=0, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        written = write_bundle(
            Path(folder) / "network",
            trained,
            coin="BTC",
            dataset_digest=candles.compute_digest(frame),
            simulated=True,
            code_version="border",
        )
        return Predictor(written.folder), trained.prepared.cuts
