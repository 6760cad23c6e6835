"""Usable rows of a dataset, split in time: the one place that says which rows are fitted on and which are judged."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from mlcore import parallel
from mlcore.data import candles
from mlcore.errors import NotEnoughBars
from mlcore.features import indicators as features
from mlcore.features import labels, splits
from mlcore.features.indicators import Schema

_ROWS_A_THREAD = 32768


@dataclass(frozen=True)
class Examples:
    """Rows with all features and a label to come, oldest first."""

    features: np.ndarray
    """float32 [n, 72], unscaled."""
    scaled_returns: np.ndarray
    """float64 [n]: what is cut into classes."""
    bars: np.ndarray
    """int64 [n]: each row's place among the candles."""
    candles: pl.DataFrame
    """The rows' own bars, [n]."""
    split: splits.Split

    @property
    def timestamps(self) -> pl.Series:
        return self.candles["timestamp"]

    def window(self, rows: slice) -> dict[str, str | int]:
        """First and last bar of a stretch of rows."""
        times = self.timestamps[rows.start : rows.stop]
        return {"first_at": _iso(times[0]), "last_at": _iso(times[-1]), "rows": len(times)}

    def window_with_digest(self, rows: slice) -> dict[str, str | int]:
        """The same with the digest of the stretch's candles, as the manifest keeps it.

        Of the candles, not of the features: those may differ in the last bit from one processor to the next.
        """
        return {**self.window(rows), "digest": candles.compute_digest(self.candles[rows])}


def build_examples(frame: pl.DataFrame, schema: Schema | str) -> Examples:
    """Rows whose features and label are all finite; the others (warm-up, the last H) are left out, never filled in.

    Raises NotEnoughBars when too few remain.
    """
    close = frame["close"].to_numpy()
    if frame.height <= labels.VOLATILITY_BARS + labels.HORIZON_BARS:
        raise NotEnoughBars(f"{frame.height:,} bars are too few to train on: import a longer history")
    makings = (lambda: features.compute_rows(frame, schema), lambda: labels.compute_forward_returns(close))
    # A figure beyond float32 is infinite in these rows, and its row is left out.
    computed, scaled = parallel.thread_map(lambda made: made(), makings)
    bars = np.flatnonzero(np.isfinite(scaled) & _all_finite(computed))
    return Examples(
        features=take_rows(computed, bars),
        scaled_returns=scaled[bars],
        bars=bars,
        candles=frame[bars[0] : bars[-1] + 1] if _is_whole(bars) else frame[bars],
        split=splits.split_rows(len(bars)),
    )


def _all_finite(computed: np.ndarray) -> np.ndarray:
    """Whether each row is. A sum is not finite where one of its terms is not; the few others that are not are too large."""

    def sums_are(some: slice) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.isfinite(computed[some] @ np.ones(computed.shape[1], computed.dtype))

    stretches = parallel.chunks(len(computed), _ROWS_A_THREAD)
    found = np.concatenate(parallel.thread_map(sums_are, stretches))
    doubtful = np.flatnonzero(~found)
    found[doubtful] = np.isfinite(computed[doubtful]).all(axis=1)
    return found


def take_rows(rows: np.ndarray, bars: np.ndarray) -> np.ndarray:
    """Those rows; without copying them where none between the first and the last is left out."""
    return rows[bars[0] : bars[-1] + 1] if _is_whole(bars) else rows[bars]


def _is_whole(bars: np.ndarray) -> bool:
    """Whether these, which grow, leave none out between the first and the last."""
    return len(bars) > 0 and bool(bars[-1] - bars[0] + 1 == len(bars))


def _iso(moment: object) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
