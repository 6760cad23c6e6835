"""The usable rows of a dataset, split in time. Only this module decides which rows are fitted on and which are judged."""

from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import polars as pl

from mlcore import parallel
from mlcore.data import candles
from mlcore.data.validation import infer_interval_ms
from mlcore.errors import NotEnoughBars
from mlcore.features import indicators, labels, splits
from mlcore.features.indicators import WARM_UP_BARS, Schema
from mlcore.features.labels import DEFAULT_LABEL, Label
from mlcore.features.scaler import Scaler
from mlcore.features.splits import DEFAULT_SHARES, Shares

_Rows = TypeVar("_Rows", np.ndarray, pl.DataFrame)


@dataclass(frozen=True)
class Examples:
    """Rows with all features and a label, oldest first."""

    features: np.ndarray
    """float32 [n, 72], unscaled; or the bars' windows [n, L, 5], which are computed when they are taken (`Windows`)."""
    scaled_returns: np.ndarray
    """float64 [n]: the outcomes of the label, cut into classes later."""
    bars: np.ndarray
    """int64 [n]: the index of each row's bar among the candles."""
    candles: pl.DataFrame
    """The bars of these rows, [n]."""
    split: splits.Split
    interval_seconds: int
    """From one bar to the next, where none is missing."""
    label: Label

    def window(self, rows: slice) -> dict[str, str | int]:
        """First bar, last bar and number of some consecutive rows."""
        times = self.candles["timestamp"]
        first, last = (f"{times[row]:%Y-%m-%dT%H:%M:%SZ}" for row in (rows.start, rows.stop - 1))
        return {"first_at": first, "last_at": last, "rows": rows.stop - rows.start}

    def window_with_digest(self, rows: slice) -> dict[str, str | int]:
        """The same with the digest of the candles, as the manifest holds it.

        Not of the features: their last bits may differ between processors.
        """
        return {**self.window(rows), "digest": candles.compute_digest(self.candles[rows])}

    def windows_with_digests(self) -> dict[str, dict[str, str | int]]:
        """Of the fit, stop and gate window."""
        return {name: self.window_with_digest(getattr(self.split, name)) for name in splits.WINDOWS}


@dataclass(frozen=True)
class FitStatistics:
    """The classes of all rows, and what is computed from the fit window alone before a fit begins."""

    labels: np.ndarray
    """int64 [n]."""
    cuts: tuple[float, float]
    scaler: Scaler
    class_weights: np.ndarray
    """float32 [3]: the rarer a class, the higher."""


def compute_fit_statistics(examples: Examples) -> FitStatistics:
    """Raises NotEnoughBars if a class has no row in the fit window."""
    fit = examples.split.fit
    cuts = examples.label.compute_cuts(examples.scaled_returns[fit])
    classes = labels.assign_classes(examples.scaled_returns, cuts)
    return FitStatistics(
        labels=classes,
        cuts=cuts,
        scaler=Scaler.fit(examples.features[fit]),
        class_weights=labels.compute_class_weights(classes[fit]),
    )


def build_examples(
    frame: pl.DataFrame,
    schema: Schema,
    label: Label = DEFAULT_LABEL,
    shares: Shares = DEFAULT_SHARES,
    *,
    warm_up: int = WARM_UP_BARS,
) -> Examples:
    """The rows whose features and label are all finite. The others (warm-up, the last bars) are left out, never filled in.

    The warm-up is at least that of the slowest schema of features, so that candles are split at the same bars for every
    line; a model that is compared with one of longer windows takes its `warm_up`. Raises NotEnoughBars if too few remain.
    """
    warm_up = max(warm_up, schema.warm_up)
    if frame.height <= max(labels.VOLATILITY_BARS, warm_up) + label.horizon:
        raise NotEnoughBars(f"{frame.height:,} bars are too few to train on: import a longer history")
    features, scaled = parallel.run_all(
        lambda: None if schema.is_window else indicators.compute_features(frame, schema, np.float32),
        lambda: label.compute_outcomes(frame),
    )
    is_usable = np.isfinite(scaled)
    if features is not None:  # a feature beyond float32 is infinite here, so its row is left out
        is_usable &= _find_finite_rows(features)
    is_usable[:warm_up] = False
    bars = np.flatnonzero(is_usable)
    split = splits.split_rows(len(bars), label.horizon, shares)
    taken = cast(np.ndarray, indicators.take_windows(frame, bars, schema))  # indexed as an array is
    return Examples(
        features=take_rows(features, bars) if features is not None else taken,
        scaled_returns=scaled[bars],
        bars=bars,
        candles=take_rows(frame, bars),
        split=split,
        interval_seconds=infer_interval_ms(frame) // 1000,
        label=label,
    )


def _find_finite_rows(features: np.ndarray) -> np.ndarray:
    """Marks rows of finite values only. A finite sum proves it; the few other rows are checked value by value."""
    with np.errstate(over="ignore", invalid="ignore"):
        is_finite: np.ndarray = np.isfinite(features @ np.ones(features.shape[1], features.dtype))
    doubtful = np.flatnonzero(~is_finite)
    is_finite[doubtful] = np.isfinite(features[doubtful]).all(axis=1)
    return is_finite


def take_rows(rows: _Rows, bars: np.ndarray) -> _Rows:
    """Those rows; a view without a copy if these increasing indices have no gap."""
    is_contiguous = len(bars) > 0 and bars[-1] - bars[0] + 1 == len(bars)
    return rows[bars[0] : bars[-1] + 1] if is_contiguous else rows[bars]
