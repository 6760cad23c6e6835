"""The 72 features of a bar, under two schemas: one function computes them for training, for the gate and for the bot.

A bar's features depend on its own last `lookback` bars and on nothing before, bit for bit (see `rolling`): a bot with
2,048 bars sees exactly what training saw in a history of years.

Where a formula leaves a figure undefined, its middle or its empty value is meant: an RSI without any move is 50, a
position inside a range of no width is the middle, a bar without volume has a volume ratio of 0.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from mlcore import parallel
from mlcore.errors import FeaturesRefused, NotEnoughBars
from mlcore.features import rolling

Array = np.ndarray

LOOKBACK = 2048
_MOMENTA = (5, 10, 20, 50)
_AVERAGES = (5, 10, 20, 50, 200)
_BANDS = (20, 50)
_RSIS = (14, 21, 30)
_STOCHASTICS = (14, 21)
_MACDS = ((12, 26, 9), (5, 35, 5))
_LAGS = (1, 2, 3, 5)
_SLOPE_BARS = 5

_EMA_BARS = {5: 128, 9: 256, 10: 256, 12: 256, 20: 512, 26: 512, 35: 1024, 50: 1024, 200: 2040}
"""How far back the exponential mean of each span reaches. What lies beyond would weigh under 2e-9 of the whole for
span 200, under 1e-16 for the others; and a slope's five bars more still fit into the lookback."""

_CHUNK = 65536
"""Rows computed at once: few enough for the processor's cache to hold what is being worked on, and so many that threads
seldom meet at the interpreter's lock between two steps."""
_APART = 16
"""Values between a chunk's columns. Columns that begin a power of two apart share one line of the cache, and when they
are turned into rows each displaces the one before: that takes three times as long."""
_WINDOWS_AT_ONCE = 64

_NEWEST = 64
"""Bars that the features of the last one look at by themselves; what looks back further is a rolling figure."""
_PRICES = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class Schema:
    """Names and order of the features a network was trained on, and how many bars one row of them needs."""

    name: str
    columns: tuple[str, ...]
    lookback: int = LOOKBACK

    @property
    def digest(self) -> str:
        """`sha256:…` over name, order and lookback; a bot compares it with its own before it predicts."""
        text = json.dumps([self.name, self.lookback, *self.columns], separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def find_schema(schema: Schema | str) -> Schema:
    """The schema itself, or the one of that name."""
    return schema if isinstance(schema, Schema) else SCHEMAS[schema]


def compute_features(frame: pl.DataFrame, schema: Schema | str) -> Array:
    """Features of every bar: float64 [rows, 72], a column's values side by side; NaN until a window is full."""
    return _filled(np.empty((len(find_schema(schema).columns), frame.height)).T, frame, schema)


def compute_rows(frame: pl.DataFrame, schema: Schema | str) -> Array:
    """The same as float32 [rows, 72], a bar's features side by side; what is beyond float32 is infinite."""
    return _filled(np.empty((frame.height, len(find_schema(schema).columns)), np.float32), frame, schema)


def _filled(out: Array, frame: pl.DataFrame, schema: Schema | str) -> Array:
    """`out` with every bar's features; each stretch of bars from its own candles and the lookback before them."""
    formulas, columns = _formulas_of(find_schema(schema)), _columns(frame)

    def fill(some: slice) -> None:
        first = max(0, some.start - LOOKBACK + 1)
        with np.errstate(over="ignore", invalid="ignore"):  # absurd prices end as figures that are not finite
            newest = some.stop - some.start
            bars = _Bars((values[first : some.stop] for values in columns), newest=newest + _NEWEST)
            lines = np.empty((len(formulas), newest + _APART), out.dtype)[:, :newest]
            for line, formula in zip(lines, formulas, strict=True):
                line[:] = formula.values(bars)[-newest:]
            out[some] = lines.T

    parallel.thread_map(fill, parallel.chunks(frame.height, _CHUNK))
    for column, formula in enumerate(formulas):
        out[: formula.warm_up, column] = np.nan
    return out


def compute_latest(frame: pl.DataFrame, schema: Schema | str) -> Array:
    """Features of the last bar, from exactly the last `lookback` bars: float32 [1, 72], finite.

    Raises NotEnoughBars for fewer bars, FeaturesRefused for a figure that is not finite.
    """
    schema = find_schema(schema)
    if frame.height < schema.lookback:
        raise NotEnoughBars(
            f"{frame.height:,} bars; a prediction needs the last {schema.lookback:,}: fetch more"
        )
    return _newest([values[-schema.lookback :] for values in _columns(frame)], schema)[np.newaxis]


def compute_latest_at(frame: pl.DataFrame, bars: Array, schema: Schema | str) -> Array:
    """`latest` for each of some bars [n], as if the frame ended there: float32 [n, 72], finite, and the same bits.

    Raises NotEnoughBars, FeaturesRefused.
    """
    schema = find_schema(schema)
    ends = (bars + 1).tolist()
    if ends and min(ends) < schema.lookback:
        raise NotEnoughBars(f"bar {bars.min():,} has fewer than {schema.lookback:,} bars up to it")
    columns = _columns(frame)

    def last_rows(some: slice) -> Array:
        windows = (
            np.stack([values[end - schema.lookback : end] for end in ends[some]]) for values in columns
        )
        return _newest(list(windows), schema)

    found = parallel.thread_map(last_rows, parallel.chunks(len(ends), _WINDOWS_AT_ONCE))
    return np.concatenate(found) if found else np.empty((0, len(schema.columns)), np.float32)


def _newest(windows: list[Array], schema: Schema) -> Array:
    """float32 [..., 72]: the last bar's features of candles [..., lookback], one array a column. Raises FeaturesRefused."""
    found = np.empty((*windows[0].shape[:-1], len(schema.columns)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        bars = _Bars(windows, newest=_NEWEST)
        for column, formula in enumerate(_formulas_of(schema)):
            found[..., column] = formula.values(bars)[..., -1]
    _refuse_infinite(found.reshape(-1, len(schema.columns)), schema)
    return found


def _refuse_infinite(found: Array, schema: Schema) -> None:
    broken = np.argwhere(~np.isfinite(found))
    if len(broken):
        row, column = broken[0]
        raise FeaturesRefused(
            f"{schema.columns[column]} of the last bar is {found[row, column]}; check the candles"
        )


def _columns(frame: pl.DataFrame) -> list[Array]:
    return [frame[name].to_numpy() for name in _PRICES]


def _formulas_of(schema: Schema) -> list["_Formula"]:
    return [_FORMULAS[name] for name in schema.columns]


class _Bars:
    """A stretch of candles with the rolling figures that several features share; time is the last axis.

    With `newest`, candles and figures are of that many last bars alone, and each is made from no more bars than it
    takes: the same bits (see `rolling`) for a fraction of the work.
    """

    def __init__(self, columns: Iterable[Array], newest: int | None = None) -> None:
        open_, high, low, close, volume = columns
        self._newest = newest
        self.ema = {n: self._exponential_mean(close, n) for n in (10, 20, 50, 200)}
        self.macd, self.signal = {}, {}
        for fast, slow, n in _MACDS:
            means = [self._exponential_mean(close, span, more=_EMA_BARS[n]) for span in (fast, slow)]
            macd = means[0] - means[1]
            self.macd[fast], self.signal[fast] = self._last(macd), self._exponential_mean(macd, n)
            self.ema[fast] = self._last(means[0])
        returns = _change(self._reach(close, 1 + max(_BANDS)), 1)
        self.sma = {n: total / n for n, total in self._rolled(rolling.compute_sums, close, _AVERAGES).items()}
        self.volatility = self._rolled(rolling.compute_deviations, returns, _BANDS)
        self.band = {
            n: 2 * spread for n, spread in self._rolled(rolling.compute_deviations, close, _BANDS).items()
        }
        self.highest = self._rolled(rolling.compute_maxima, high, (*_STOCHASTICS, *_BANDS))
        self.lowest = self._rolled(rolling.compute_minima, low, (*_STOCHASTICS, *_BANDS))
        self.moves = self._rolled(
            rolling.compute_sums, _gains_and_losses(self._reach(close, 1 + max(_RSIS))), _RSIS
        )
        self.atr = self._rolled(rolling.compute_sums, high - low, [14])[14] / 14
        usual_volume = self._rolled(rolling.compute_sums, volume, [20])[20] / 20
        candles = (open_, high, low, close, volume, returns)
        self.open, self.high, self.low, self.close, self.volume, self.returns = map(self._last, candles)
        self.volume_ratio = _divided(self.volume, usual_volume, undefined=0.0)
        self.stochastic = {n: self.place(n) * 100 for n in _STOCHASTICS}

    def _reach(self, values: Array, bars: int) -> Array:
        """What the newest bars' figures over so many bars are made from."""
        return values if self._newest is None else values[..., -(bars + self._newest) :]

    def _last(self, values: Array) -> Array:
        return values if self._newest is None else values[..., -self._newest :]

    def _rolled(
        self, roll: Callable[..., dict[int, Array]], values: Array, sizes: Iterable[int]
    ) -> dict[int, Array]:
        return roll(self._reach(values, max(sizes)), sizes, self._newest)

    def _exponential_mean(self, values: Array, span: int, *, more: int = 0) -> Array:
        """Of the newest bars, and of so many more before them."""
        bars, newest = _EMA_BARS[span], None if self._newest is None else self._newest + more
        return rolling.compute_exponential_mean(self._reach(values, bars + more), span, bars, newest)

    def place(self, n: int) -> Array:
        """Where the close stands between the lowest low (0) and the highest high (1) of n bars."""
        return _divided(self.close - self.lowest[n], self.highest[n] - self.lowest[n], undefined=0.5)

    def rsi(self, n: int) -> Array:
        gains, losses = self.moves[n]
        return 100 * _divided(gains, gains + losses, undefined=0.5)

    def place_in_band(self, n: int) -> Array:
        band = self.band[n]
        return _divided(self.close - self.sma[n] + band, 2 * band, undefined=0.5)


def _divided(numerator: Array, denominator: Array, *, undefined: float) -> Array:
    """The quotient; `undefined` where the denominator is 0."""
    empty = denominator == 0
    if not empty.any():
        return numerator / denominator
    return np.where(empty, undefined, numerator / np.where(empty, 1.0, denominator))


def _before(values: Array, bars: int) -> Array:
    """Each row's value `bars` rows earlier; the first rows, which the warm-up hides, repeat the first value."""
    shifted = np.empty_like(values)
    shifted[..., :bars] = values[..., :1]
    shifted[..., bars:] = values[..., : max(0, values.shape[-1] - bars)]
    return shifted


def _change(values: Array, bars: int) -> Array:
    """Relative change since `bars` rows earlier; of the first rows, which the warm-up hides, since the first value."""
    change = np.empty_like(values)
    np.divide(values[..., :bars], values[..., :1], out=change[..., :bars])
    np.divide(values[..., bars:], values[..., : max(0, values.shape[-1] - bars)], out=change[..., bars:])
    change -= 1
    return change


def _gains_and_losses(close: Array) -> Array:
    """[2, rows]: how far the close rose, and how far it fell, since the bar before."""
    change = close - _before(close, 1)
    return np.stack([np.maximum(change, 0), np.maximum(-change, 0)])


@dataclass(frozen=True)
class _Formula:
    warm_up: int
    """Rows at the beginning of a history for which there is no value yet."""
    values: Callable[[_Bars], Array]


_Formulas = Iterator[tuple[str, _Formula]]


def _formulas() -> _Formulas:
    yield from _bar_formulas()
    groups = {
        _lag_formulas: _LAGS,
        _momentum_formulas: _MOMENTA,
        _average_formulas: _AVERAGES,
        _rsi_formulas: _RSIS,
        _stochastic_formulas: _STOCHASTICS,
        _band_formulas: _BANDS,
    }
    for formulas, windows in groups.items():
        for n in windows:
            yield from formulas(n)
    for fast, slow, _ in _MACDS:
        yield from _macd_formulas(fast, f"{fast}_{slow}")


def _bar_formulas() -> _Formulas:
    yield "returns", _Formula(1, lambda bars: bars.returns)
    yield "log_returns", _Formula(1, lambda bars: np.log(bars.close / _before(bars.close, 1)))
    yield "high_low_ratio", _Formula(0, lambda bars: bars.high / bars.low)
    yield "close_open_ratio", _Formula(0, lambda bars: bars.close / bars.open)
    yield "volume_ratio", _Formula(19, lambda bars: bars.volume_ratio)
    yield "volume_price_trend", _Formula(1, lambda bars: bars.volume * bars.returns)
    yield "volume_ratio_trend", _Formula(19, lambda bars: bars.volume_ratio * bars.returns)
    yield "atr_14", _Formula(13, lambda bars: bars.atr)
    yield "atr_14_to_close", _Formula(13, lambda bars: bars.atr / bars.close)


def _lag_formulas(k: int) -> _Formulas:
    yield f"returns_lag_{k}", _Formula(1 + k, lambda bars: _before(bars.returns, k))
    yield f"volume_lag_{k}", _Formula(19 + k, lambda bars: _before(bars.volume_ratio, k))


def _momentum_formulas(n: int) -> _Formulas:
    yield f"momentum_{n}", _Formula(n, lambda bars: _change(bars.close, n))
    yield f"roc_{n}", _Formula(n, lambda bars: 100 * _change(bars.close, n))


def _average_formulas(n: int) -> _Formulas:
    yield f"sma_{n}", _Formula(n - 1, lambda bars: bars.sma[n])
    yield f"ema_{n}", _Formula(0, lambda bars: bars.ema[n])
    yield f"sma_{n}_slope", _Formula(n - 1 + _SLOPE_BARS, lambda bars: _change(bars.sma[n], _SLOPE_BARS))
    yield f"ema_{n}_slope", _Formula(_SLOPE_BARS, lambda bars: _change(bars.ema[n], _SLOPE_BARS))
    yield f"price_to_sma_{n}", _Formula(n - 1, lambda bars: bars.close / bars.sma[n])
    yield f"price_to_ema_{n}", _Formula(0, lambda bars: bars.close / bars.ema[n])


def _rsi_formulas(n: int) -> _Formulas:
    yield f"rsi_{n}", _Formula(n, lambda bars: bars.rsi(n))


def _stochastic_formulas(n: int) -> _Formulas:
    yield f"stoch_k_{n}", _Formula(n - 1, lambda bars: bars.stochastic[n])
    yield f"stoch_d_{n}", _Formula(n + 1, lambda bars: rolling.compute_sums(bars.stochastic[n], [3])[3] / 3)
    yield f"williams_r_{n}", _Formula(n - 1, lambda bars: bars.stochastic[n] - 100)


def _band_formulas(n: int) -> _Formulas:
    yield f"volatility_{n}", _Formula(n, lambda bars: bars.volatility[n])
    yield f"bb_position_{n}", _Formula(n - 1, lambda bars: bars.place_in_band(n))
    yield f"price_channel_position_{n}", _Formula(n - 1, lambda bars: bars.place(n))
    yield from _level_formulas(f"bb_upper_{n}", n - 1, lambda bars: bars.sma[n] + bars.band[n])
    yield from _level_formulas(f"bb_lower_{n}", n - 1, lambda bars: bars.sma[n] - bars.band[n])
    yield from _level_formulas(f"price_channel_high_{n}", n - 1, lambda bars: bars.highest[n])
    yield from _level_formulas(f"price_channel_low_{n}", n - 1, lambda bars: bars.lowest[n])


def _level_formulas(name: str, warm_up: int, level: Callable[["_Bars"], Array]) -> _Formulas:
    """A price level, and its distance from the close in parts of the close."""
    yield name, _Formula(warm_up, level)
    yield f"{name}_to_close", _Formula(warm_up, lambda bars: level(bars) / bars.close - 1)


def _macd_formulas(fast: int, spans: str) -> _Formulas:
    yield f"macd_{spans}", _Formula(0, lambda bars: bars.macd[fast])
    yield f"macd_signal_{spans}", _Formula(0, lambda bars: bars.signal[fast])
    yield f"macd_histogram_{spans}", _Formula(0, lambda bars: bars.macd[fast] - bars.signal[fast])
    yield f"macd_{spans}_to_close", _Formula(0, lambda bars: bars.macd[fast] / bars.close)
    yield f"macd_signal_{spans}_to_close", _Formula(0, lambda bars: bars.signal[fast] / bars.close)
    yield (
        f"macd_histogram_{spans}_to_close",
        _Formula(0, lambda bars: (bars.macd[fast] - bars.signal[fast]) / bars.close),
    )


_FORMULAS = dict(_formulas())


def _raw_columns() -> Iterator[str]:
    yield from (
        "returns",
        "log_returns",
        "high_low_ratio",
        "close_open_ratio",
        "volume_ratio",
        "volume_price_trend",
    )
    for n in _MOMENTA:
        yield from (f"momentum_{n}", f"roc_{n}")
    for n in _AVERAGES:
        yield from (f"sma_{n}", f"ema_{n}", f"price_to_sma_{n}", f"price_to_ema_{n}")
    yield from ("volatility_20", "volatility_50", "atr_14", "rsi_14", "rsi_21", "rsi_30")
    for n in _BANDS:
        yield from (f"bb_upper_{n}", f"bb_lower_{n}", f"bb_position_{n}")
    for f, s, _ in _MACDS:
        yield from (f"macd_{f}_{s}", f"macd_signal_{f}_{s}", f"macd_histogram_{f}_{s}")
    for n in _STOCHASTICS:
        yield from (f"stoch_k_{n}", f"stoch_d_{n}")
    yield from ("williams_r_14", "williams_r_21")
    for n in _BANDS:
        yield from (f"price_channel_high_{n}", f"price_channel_low_{n}", f"price_channel_position_{n}")
    for k in _LAGS:
        yield from (f"returns_lag_{k}", f"volume_lag_{k}")


def _relative(column: str) -> str:
    """The feature that stands for a raw one in relative72: the same if it is a ratio already."""
    if column == "volume_price_trend":
        return "volume_ratio_trend"
    return next(name for name in (f"{column}_slope", f"{column}_to_close", column) if name in _FORMULAS)


_RAW72 = Schema("raw72", tuple(_raw_columns()))
_RELATIVE72 = Schema("relative72", tuple(map(_relative, _RAW72.columns)))

SCHEMAS = {schema.name: schema for schema in (_RAW72, _RELATIVE72)}
