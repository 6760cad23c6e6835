"""Checks of simulated candles. They break the laws of markets, so they are compared with their own simulator."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from mlcore.data.candles import compute_digest
from mlcore.data.simulate import simulate
from mlcore.errors import MlcoreError
from mlcore.quality.market_checks import MIN_BARS
from mlcore.quality.market_statistics import Market
from mlcore.quality.plot_data import build_plot_data
from mlcore.quality.result import CandleReport, Check, pass_or_fail
from mlcore.quality.rows import check_rows
from mlcore.verdict import Finding, Verdict

MIN_JOINED_SHARE = 0.999  # bars that open exactly at the close before; real candles: 0.62 at most
BAR_VOLATILITY = 0.0025, 0.030  # per bar: 0.0036 … 0.0065 at drift 0, five times that at 5
VARIANCE_RATIO = 0.5, 20.0  # 8 at drift 1.2, 11 at 5
ACTIVITY = 0.30, 0.70


@dataclass(frozen=True)
class SimulatorSettings:
    """The settings that `mlcore.data.simulate` was called with."""

    bars: int
    drift: float
    seed: int


@np.errstate(all="ignore")
def check_simulated_candles(
    frame: pl.DataFrame, *, coin: str, generator: SimulatorSettings | None
) -> CandleReport:
    """Whether the simulator makes exactly these bars; without known settings, whether it makes bars like these."""
    rows = CandleReport(tuple(check_rows(frame)))
    if rows.verdict != Verdict.PASSED:
        return rows
    market = Market.from_frame(frame)
    check = _check_regenerated(frame, coin, generator) if generator else _check_statistics(market)
    return CandleReport((*rows.checks, check), build_plot_data(market))


def _check_regenerated(frame: pl.DataFrame, coin: str, generator: SimulatorSettings) -> Check:
    settings = f"drift {generator.drift:g}, {generator.bars:,} bars, seed {generator.seed}"
    threshold = f"exactly the bars that the simulator makes ({settings})"
    try:
        made = simulate(coin, generator.bars, generator.drift, generator.seed)
    except (MlcoreError, ValueError) as error:
        sentence = f"The simulator does not take these settings: {error}."
        return Check("generator", threshold, Finding(Verdict.ERROR, None, "cannot be made again", sentence))
    is_same = compute_digest(made) == compute_digest(frame)
    return pass_or_fail(
        "generator",
        threshold,
        None,
        "the same bytes" if is_same else "other bytes",
        passed="Simulated again with its settings, it is the same to the last byte.",
        failed="Simulated again with its settings, it is another series: it was changed, or made in another way.",
        is_passed=is_same,
    )


def _check_statistics(market: Market) -> Check:
    """Without settings: whether every figure lies in the simulator's range, for drifts from 0 to 5."""
    threshold = "opens, moves and volume as the simulator makes them, its settings unknown"
    if len(market) < MIN_BARS:
        sentence = "Too few bars to tell whether the simulator made them, and its settings are not known."
        finding = Finding(Verdict.INCONCLUSIVE, None, f"{len(market):,} bars", sentence)
        return Check("generator", threshold, finding)
    joined = market.joined_share
    figures = {
        "opens joined": (joined, MIN_JOINED_SHARE, 1.0),
        "volatility of a bar": (float(market.returns.std()), *BAR_VOLATILITY),
        "variance ratio": (market.variance_ratio, *VARIANCE_RATIO),
        "volume with range": (market.activity, *ACTIVITY),
    }
    outside = [
        f"{name} {value:.3g}, not {low:g} … {high:g}"
        for name, (value, low, high) in figures.items()
        if not (np.isfinite(value) and low <= value <= high)
    ]
    inside = f"{joined:.1%} of the opens joined, variance ratio {market.variance_ratio:.1f}"
    return pass_or_fail(
        "generator",
        threshold,
        joined,
        "; ".join(outside) or inside,
        passed="The simulator makes such series.",
        failed="It is marked as simulated, but the simulator makes no such series.",
        is_passed=not outside,
    )
