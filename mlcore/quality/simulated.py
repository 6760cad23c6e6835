"""Judging simulated candles: not by a market's laws, which they break, but by those of their own generator."""

from dataclasses import asdict, dataclass

import numpy as np
import polars as pl

from mlcore.data.candles import compute_digest
from mlcore.data.simulate import simulate
from mlcore.errors import MlcoreError
from mlcore.quality.market_checks import CandleReport, variance_ratio_band
from mlcore.quality.market_statistics import Market
from mlcore.quality.plots import build_plot_data
from mlcore.quality.result import Check, pass_or_fail
from mlcore.quality.rows import check_rows
from mlcore.verdict import Finding, Verdict

LEAST_JOINED_SHARE = 0.999  # bars that open exactly at the close before; real candles: 0.62 at most
LEAST_BAR_VOLATILITY, MOST_BAR_VOLATILITY = (
    0.0025,
    0.030,
)  # per bar: 0.0036 … 0.0065 at drift 0, five times that at 5
MOST_VARIANCE_RATIO = 20.0  # 8 at drift 1.2, 11 at 5
LEAST_VARIANCE_RATIO = 0.5
LEAST_ACTIVITY, MOST_ACTIVITY = 0.30, 0.70
LEAST_BARS = 1000


@dataclass(frozen=True)
class SimulatorSettings:
    """The settings `mlcore.data.simulate` was called with."""

    bars: int
    drift: float
    seed: int

    def document(self) -> dict[str, float]:
        return asdict(self)


@np.errstate(all="ignore")
def check_simulated_candles(
    frame: pl.DataFrame, *, coin: str, generator: SimulatorSettings | None
) -> CandleReport:
    """Whether these are what the simulator makes: the very bars where its settings are known, else such bars."""
    rows = tuple(check_rows(frame))
    if any(check.finding.verdict != Verdict.PASSED for check in rows):
        return CandleReport(rows)
    market = Market.from_frame(frame)
    made = _as_generated(frame, coin, generator) if generator else _like_generated(market)
    return CandleReport((*rows, made), build_plot_data(market, variance_ratio_band))


def _as_generated(frame: pl.DataFrame, coin: str, generator: SimulatorSettings) -> Check:
    settings = f"drift {generator.drift:g}, {generator.bars:,} bars, seed {generator.seed}"
    threshold = f"the very bars the simulator makes ({settings})"
    try:
        made = simulate(coin, generator.bars, generator.drift, generator.seed)
    except (MlcoreError, ValueError) as refused:
        says = f"The simulator does not take these settings: {refused}."
        return Check("generator", threshold, Finding(Verdict.ERROR, None, "cannot be made again", says))
    is_same = compute_digest(made) == compute_digest(frame)
    return Check(
        "generator",
        threshold,
        pass_or_fail(
            is_same,
            None,
            "the same bytes" if is_same else "other bytes",
            "Made again from its settings, it is the same to the last byte.",
            "Made again from its settings, it is another series: it was altered, or never came from there.",
        ),
    )


def _like_generated(market: Market) -> Check:
    """Without settings: whether every figure lies where the simulator's do, from drift 0 to 5."""
    threshold = "opens, moves and volume as the simulator makes them, its settings unknown"
    if len(market) < LEAST_BARS:
        says = "Too few bars to tell whether the simulator made them, and its settings are not known."
        return Check(
            "generator", threshold, Finding(Verdict.INCONCLUSIVE, None, f"{len(market):,} bars", says)
        )
    joined = float((market.open[1:] == market.close[:-1]).mean())
    figures = {
        "opens joined": (joined, LEAST_JOINED_SHARE, 1.0),
        "volatility of a bar": (float(market.returns.std()), LEAST_BAR_VOLATILITY, MOST_BAR_VOLATILITY),
        "variance ratio": (market.variance_ratio, LEAST_VARIANCE_RATIO, MOST_VARIANCE_RATIO),
        "volume with range": (market.activity, LEAST_ACTIVITY, MOST_ACTIVITY),
    }
    against = [
        f"{name} {value:.3g}, not {low:g} … {high:g}"
        for name, (value, low, high) in figures.items()
        if not (np.isfinite(value) and low <= value <= high)
    ]
    return Check(
        "generator",
        threshold,
        pass_or_fail(
            not against,
            joined,
            "; ".join(against)
            or f"{joined:.1%} of the opens joined, variance ratio {market.variance_ratio:.1f}",
            "It is such a series as the simulator makes.",
            "It is called simulated, but the simulator makes no such series.",
        ),
    )
