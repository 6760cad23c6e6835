"""The inputs of a model: the 72 features of a bar under two schemas, or its window of bars.

Training, the gate and the bot compute them by the same code.

A bar's features depend on its last `lookback` bars and on nothing before, bit for bit (see `rolling`). So a bot with
2,048 bars computes exactly what training computed from a history of years.

If a formula is undefined, a neutral value is used: an RSI without any move is 50, the position in a range without width
is the middle, and a bar without volume has a volume ratio of 0.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl

from mlcore import parallel
from mlcore.errors import FeaturesRefused, NotEnoughBars
from mlcore.features import rolling, windows

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

EMA_BARS = {5: 128, 9: 256, 10: 256, 12: 256, 20: 512, 26: 512, 35: 1024, 50: 1024, 200: 2040}
"""How many bars the exponential mean of each span uses. Older bars would weigh under 2e-9 of the whole for span 200,
under 1e-16 for the others. The five more bars of a slope still fit into the lookback."""

_CHUNK_ROWS = 65536
"""Few enough for the work arrays to fit into the processor's cache, so many that threads seldom wait for the
interpreter's lock."""
_PADDING = 16
"""Values between a chunk's columns. Columns that begin a power of two apart share one cache line, so transposing them
takes three times as long."""
_CHUNK_WINDOWS = 64

RATIO, PERCENT, PRICE, VOLUME = "ratio", "percent", "price", "volume"
"""The units of features; prices and volume are in the units of the candles."""

_NEWEST = 64
"""How many bars a formula reads directly; what looks back further is a rolling statistic."""
PRICES = windows.COLUMNS
WINDOW = "window"
"""The name of a window's schema, before its number of bars."""


@dataclass(frozen=True)
class Schema:
    """Names and order of a model's inputs, and the number of bars that one row of them needs."""

    name: str
    columns: tuple[str, ...]
    lookback: int = LOOKBACK

    @property
    def is_window(self) -> bool:
        """Whether a row is [lookback, 5] of bars, and not [72] of features."""
        return self.columns == windows.COLUMNS

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return (self.lookback, len(self.columns)) if self.is_window else (len(self.columns),)

    @property
    def warm_up(self) -> int:
        """The bars at the beginning of a history that no model with this input is fitted or judged on."""
        return max(WARM_UP_BARS, self.lookback - 1) if self.is_window else WARM_UP_BARS

    @property
    def digest(self) -> str:
        """`sha256:…` over names, order and lookback; a bot compares it with its own before it predicts."""
        text = json.dumps([self.name, self.lookback, *self.columns], separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def find_schema(name: str) -> Schema | None:
    """`raw72`, `relative72`, or a window such as `window64` (16 to 2,048 bars); None for any other name."""
    if name in SCHEMAS:
        return SCHEMAS[name]
    digits = name.removeprefix(WINDOW)
    if (
        digits == name
        or not digits.isdecimal()
        or not digits.isascii()
        or len(digits) > 4
        or digits[0] == "0"
    ):
        return None
    bars = int(digits)
    is_within = windows.MIN_BARS <= bars <= windows.MAX_BARS
    return Schema(name, windows.COLUMNS, lookback=bars) if is_within else None


def describe_inputs() -> str:
    """The names that `find_schema` knows, for messages."""
    return f"{', '.join(SCHEMAS)} or {WINDOW}{windows.MIN_BARS} to {WINDOW}{windows.MAX_BARS}"


def take_windows(frame: pl.DataFrame, bars: Array, schema: Schema) -> windows.Windows:
    """The windows of some bars, computed when they are taken."""
    return windows.Windows(_get_columns(frame), bars, schema.lookback)


def compute_features(frame: pl.DataFrame, schema: Schema, dtype: type = np.float64) -> Array:
    """Features of every bar [rows, 72] in column order; NaN until a window is full; in float32, ∞ beyond its range.

    Each chunk is computed from its own bars and the lookback before them. Not for windows: see `take_windows`.
    """
    formulas, columns = [FORMULAS[name] for name in schema.columns], _get_columns(frame)
    out: Array = np.empty((frame.height, len(formulas)), dtype)

    def fill(rows: slice) -> None:
        first = max(0, rows.start - LOOKBACK + 1)
        with np.errstate(over="ignore", invalid="ignore"):  # absurd prices give figures that are not finite
            newest = rows.stop - rows.start
            bars = Bars((values[first : rows.stop] for values in columns), newest=newest + _NEWEST)
            lines = np.empty((len(formulas), newest + _PADDING), out.dtype)[:, :newest]
            for line, formula in zip(lines, formulas, strict=True):
                line[:] = formula.values(bars)[-newest:]
            out[rows] = lines.T

    parallel.thread_map(fill, parallel.chunks(frame.height, _CHUNK_ROWS))
    for column, formula in enumerate(formulas):
        out[: formula.warm_up, column] = np.nan
    return out


def compute_latest(frame: pl.DataFrame, schema: Schema) -> Array:
    """The input of the last bar, from exactly the last `lookback` bars: float32 [1, 72] or [1, L, 5], finite.

    Raises NotEnoughBars for fewer bars, FeaturesRefused for a feature that is not finite.
    """
    if frame.height < schema.lookback:
        raise NotEnoughBars(
            f"{frame.height:,} bars; a prediction needs the last {schema.lookback:,}: fetch more"
        )
    return compute_latest_at(frame, np.array([frame.height - 1]), schema)


def compute_latest_at(frame: pl.DataFrame, bars: Array, schema: Schema) -> Array:
    """`compute_latest` for each of the bars [n], as if the frame ended there, with the same bits.

    Raises NotEnoughBars, FeaturesRefused.
    """
    ends = (bars + 1).tolist()
    if ends and min(ends) < schema.lookback:
        raise NotEnoughBars(f"bar {bars.min():,} has fewer than {schema.lookback:,} bars up to it")
    columns = _get_columns(frame)
    if schema.is_window:
        return _require_finite(windows.compute_windows(columns, bars, schema.lookback), schema)
    formulas = [FORMULAS[name] for name in schema.columns]

    def compute_chunk(rows: slice) -> Array:
        windows = (
            np.stack([values[end - schema.lookback : end] for end in ends[rows]]) for values in columns
        )
        features = np.empty((len(ends[rows]), len(formulas)), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            bars = Bars(windows, newest=_NEWEST)
            for column, formula in enumerate(formulas):
                features[:, column] = formula.values(bars)[:, -1]
        return _require_finite(features, schema)

    chunks = parallel.thread_map(compute_chunk, parallel.chunks(len(ends), _CHUNK_WINDOWS))
    return np.concatenate(chunks) if chunks else np.empty((0, len(formulas)), np.float32)


def _require_finite(inputs: Array, schema: Schema) -> Array:
    for *_, column in np.argwhere(~np.isfinite(inputs)):
        value = inputs[..., column][~np.isfinite(inputs[..., column])].flat[0]
        raise FeaturesRefused(f"{schema.columns[column]} of the last bar is {value}; check the candles")
    return inputs


def _get_columns(frame: pl.DataFrame) -> list[Array]:
    return [frame[name].to_numpy() for name in PRICES]


class Bars:
    """Candles and the rolling statistics that several features share; time is the last axis.

    Only the last `newest` bars are kept, and each statistic is computed from no more bars than it needs: the same bits
    (see `rolling`) for a fraction of the work.
    """

    def __init__(self, columns: Iterable[Array], newest: int) -> None:
        open_, high, low, close, volume = columns
        self._newest = newest
        self.ema = {n: self._compute_exponential_mean(close, n) for n in (10, 20, 50, 200)}
        self.macd, self.signal = {}, {}
        for fast, slow, n in _MACDS:
            means = [self._compute_exponential_mean(close, span, more=EMA_BARS[n]) for span in (fast, slow)]
            macd = means[0] - means[1]
            self.macd[fast], self.signal[fast] = macd[..., -newest:], self._compute_exponential_mean(macd, n)
            self.ema[fast] = means[0][..., -newest:]
        returns = _compute_change(self._take_reach(close, 1 + max(_BANDS)), 1)
        self.sma = {n: total / n for n, total in self._roll(rolling.compute_sums, close, _AVERAGES).items()}
        self.volatility = self._roll(rolling.compute_deviations, returns, _BANDS)
        self.band = {
            n: 2 * spread for n, spread in self._roll(rolling.compute_deviations, close, _BANDS).items()
        }
        self.highest = self._roll(rolling.compute_maxima, high, (*_STOCHASTICS, *_BANDS))
        self.lowest = self._roll(rolling.compute_minima, low, (*_STOCHASTICS, *_BANDS))
        self.moves = self._roll(
            rolling.compute_sums, _split_gains_and_losses(self._take_reach(close, 1 + max(_RSIS))), _RSIS
        )
        self.atr = self._roll(rolling.compute_sums, high - low, [14])[14] / 14
        usual_volume = self._roll(rolling.compute_sums, volume, [20])[20] / 20
        self.open, self.high, self.low, self.close, self.volume, self.returns = (
            values[..., -newest:] for values in (open_, high, low, close, volume, returns)
        )
        self.volume_ratio = _divide(self.volume, usual_volume, undefined=0.0)
        self.stochastic = {n: self.compute_channel_position(n) * 100 for n in _STOCHASTICS}

    def _take_reach(self, values: Array, bars: int) -> Array:
        """The values that windows of so many bars need."""
        return values[..., -(bars + self._newest) :]

    def _roll(
        self, roll: Callable[..., dict[int, Array]], values: Array, sizes: Iterable[int]
    ) -> dict[int, Array]:
        return roll(self._take_reach(values, max(sizes)), sizes, self._newest)

    def _compute_exponential_mean(self, values: Array, span: int, *, more: int = 0) -> Array:
        """Of the newest bars, and of `more` bars before them."""
        bars = EMA_BARS[span]
        values = self._take_reach(values, bars + more)
        return rolling.compute_exponential_mean(values, span, bars, self._newest + more)

    def compute_channel_position(self, n: int) -> Array:
        """The position of the close between the lowest low (0) and the highest high (1) of n bars."""
        return _divide(self.close - self.lowest[n], self.highest[n] - self.lowest[n], undefined=0.5)

    def compute_rsi(self, n: int) -> Array:
        gains, losses = self.moves[n]
        return 100 * _divide(gains, gains + losses, undefined=0.5)

    def compute_band_position(self, n: int) -> Array:
        band = self.band[n]
        return _divide(self.close - self.sma[n] + band, 2 * band, undefined=0.5)


def _divide(numerator: Array, denominator: Array, *, undefined: float) -> Array:
    """The quotient, or `undefined` for a denominator of 0."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, undefined), where=denominator != 0)


def _shift(values: Array, bars: int) -> Array:
    """Each row's value `bars` rows earlier. The first rows repeat the first value; the warm-up hides them."""
    shifted = np.empty_like(values)
    shifted[..., :bars] = values[..., :1]
    shifted[..., bars:] = values[..., : max(0, values.shape[-1] - bars)]
    return shifted


def _compute_change(values: Array, bars: int) -> Array:
    """Relative change since `bars` rows earlier. The first rows count from the first value; the warm-up hides them."""
    return values / _shift(values, bars) - 1


def _split_gains_and_losses(close: Array) -> Array:
    """[2, rows]: the rise and the fall of the close since the bar before."""
    change = close - _shift(close, 1)
    return np.stack([np.maximum(change, 0), np.maximum(-change, 0)])


@dataclass(frozen=True)
class Formula:
    """How one feature is computed, and what a reader is told of it (see `reference`)."""

    warm_up: int
    """The number of rows at the beginning of a history without a value."""
    values: Callable[[Bars], Array]
    text: str
    """The same in the notation of `reference`, of prices, volume and other features."""
    unit: str = RATIO
    least: float = -math.inf
    greatest: float = math.inf
    """What the value cannot lie beyond, rounding aside."""
    undefined: float | None = None
    """The value where the divisor is 0; None where it cannot be."""


_Formulas = Iterator[tuple[str, Formula]]


def _list_formulas() -> _Formulas:
    yield from _list_bar_formulas()
    groups = {
        _list_lag_formulas: _LAGS,
        _list_momentum_formulas: _MOMENTA,
        _list_average_formulas: _AVERAGES,
        _list_rsi_formulas: _RSIS,
        _list_stochastic_formulas: _STOCHASTICS,
        _list_band_formulas: _BANDS,
    }
    for formulas, sizes in groups.items():
        for n in sizes:
            yield from formulas(n)
    for fast, slow, n in _MACDS:
        yield from _list_macd_formulas(fast, slow, n)


def _list_bar_formulas() -> _Formulas:
    change, volume, trend = "close / lag(close, 1)", "volume / mean(volume, 20)", "volume_ratio * returns"
    yield "returns", Formula(1, lambda bars: bars.returns, f"{change} - 1", least=-1)
    yield "log_returns", Formula(1, lambda bars: np.log(bars.close / _shift(bars.close, 1)), f"ln({change})")
    yield "high_low_ratio", Formula(0, lambda bars: bars.high / bars.low, "high / low", least=1)
    yield "close_open_ratio", Formula(0, lambda bars: bars.close / bars.open, "close / open", least=0)
    yield (
        "volume_ratio",
        Formula(19, lambda bars: bars.volume_ratio, volume, least=0, greatest=20, undefined=0),
    )
    yield (
        "volume_price_trend",
        Formula(1, lambda bars: bars.volume * bars.returns, "volume * returns", VOLUME),
    )
    yield "volume_ratio_trend", Formula(19, lambda bars: bars.volume_ratio * bars.returns, trend, least=-20)
    yield from _list_move_formulas("atr_14", 13, lambda bars: bars.atr, "mean(high - low, 14)", least=0)


def _list_lag_formulas(k: int) -> _Formulas:
    returns, volume = f"lag(returns, {k})", f"lag(volume_ratio, {k})"
    yield f"returns_lag_{k}", Formula(1 + k, lambda bars: _shift(bars.returns, k), returns, least=-1)
    yield (
        f"volume_lag_{k}",
        Formula(19 + k, lambda bars: _shift(bars.volume_ratio, k), volume, least=0, greatest=20),
    )


def _list_momentum_formulas(n: int) -> _Formulas:
    change = f"close / lag(close, {n}) - 1"
    yield f"momentum_{n}", Formula(n, lambda bars: _compute_change(bars.close, n), change, least=-1)
    yield (
        f"roc_{n}",
        Formula(
            n, lambda bars: 100 * _compute_change(bars.close, n), f"100 * momentum_{n}", PERCENT, least=-100
        ),
    )


def _list_average_formulas(n: int) -> _Formulas:
    yield from _list_mean_formulas(f"sma_{n}", n - 1, lambda bars: bars.sma[n], f"mean(close, {n})")
    yield from _list_mean_formulas(f"ema_{n}", 0, lambda bars: bars.ema[n], f"ema(close, {n})")


def _list_mean_formulas(name: str, warm_up: int, mean: Callable[[Bars], Array], text: str) -> _Formulas:
    """A mean price, its change over the last bars, and the close relative to it."""
    yield name, Formula(warm_up, mean, text, PRICE, least=0)
    yield (
        f"{name}_slope",
        Formula(
            warm_up + _SLOPE_BARS,
            lambda bars: _compute_change(mean(bars), _SLOPE_BARS),
            f"{name} / lag({name}, {_SLOPE_BARS}) - 1",
            least=-1,
        ),
    )
    yield (
        f"price_to_{name}",
        Formula(warm_up, lambda bars: bars.close / mean(bars), f"close / {name}", least=0),
    )


def _list_rsi_formulas(n: int) -> _Formulas:
    move = "close - lag(close, 1)"
    text = f"100 * sum(positive({move}), {n}) / sum(abs({move}), {n})"
    yield f"rsi_{n}", Formula(n, lambda bars: bars.compute_rsi(n), text, PERCENT, 0, 100, undefined=50)


def _list_stochastic_formulas(n: int) -> _Formulas:
    text = f"100 * {_write_channel_position(n)}"
    yield (
        f"stoch_k_{n}",
        Formula(n - 1, lambda bars: bars.stochastic[n], text, PERCENT, 0, 100, undefined=50),
    )
    yield (
        f"stoch_d_{n}",
        Formula(
            n + 1,
            lambda bars: rolling.compute_sums(bars.stochastic[n], [3])[3] / 3,
            f"mean(stoch_k_{n}, 3)",
            PERCENT,
            0,
            100,
        ),
    )
    yield (
        f"williams_r_{n}",
        Formula(n - 1, lambda bars: bars.stochastic[n] - 100, f"stoch_k_{n} - 100", PERCENT, -100, 0),
    )


def _write_channel_position(n: int) -> str:
    return f"(close - lowest(low, {n})) / (highest(high, {n}) - lowest(low, {n}))"


def _list_band_formulas(n: int) -> _Formulas:
    middle, band = f"mean(close, {n})", f"2 * std(close, {n})"
    # No value of n is further from their mean than (n − 1)/√n standard deviations (Samuelson 1968).
    reach = (n - 1) / math.sqrt(n) / 4
    yield f"volatility_{n}", Formula(n, lambda bars: bars.volatility[n], f"std(returns, {n})", least=0)
    yield (
        f"bb_position_{n}",
        Formula(
            n - 1,
            lambda bars: bars.compute_band_position(n),
            f"(close - bb_lower_{n}) / (bb_upper_{n} - bb_lower_{n})",
            least=0.5 - reach,
            greatest=0.5 + reach,
            undefined=0.5,
        ),
    )
    yield (
        f"price_channel_position_{n}",
        Formula(
            n - 1,
            lambda bars: bars.compute_channel_position(n),
            _write_channel_position(n),
            least=0,
            greatest=1,
            undefined=0.5,
        ),
    )
    level = partial(_list_level_formulas, warm_up=n - 1)
    yield from level(
        f"bb_upper_{n}", lambda bars: bars.sma[n] + bars.band[n], f"{middle} + {band}", least=0, lowest=-1
    )
    yield from level(f"bb_lower_{n}", lambda bars: bars.sma[n] - bars.band[n], f"{middle} - {band}")
    yield from level(
        f"price_channel_high_{n}", lambda bars: bars.highest[n], f"highest(high, {n})", least=0, lowest=0
    )
    yield from level(
        f"price_channel_low_{n}",
        lambda bars: bars.lowest[n],
        f"lowest(low, {n})",
        least=0,
        lowest=-1,
        highest=0,
    )


def _list_level_formulas(
    name: str,
    level: Callable[[Bars], Array],
    text: str,
    *,
    warm_up: int,
    least: float = -math.inf,
    lowest: float = -math.inf,
    highest: float = math.inf,
) -> _Formulas:
    """A price level, and its distance from the close relative to the close, within its own bounds."""
    yield name, Formula(warm_up, level, text, PRICE, least)
    distance = f"{name} / close - 1"
    yield (
        f"{name}_to_close",
        Formula(warm_up, lambda bars: level(bars) / bars.close - 1, distance, RATIO, lowest, highest),
    )


def _list_macd_formulas(fast: int, slow: int, n: int) -> _Formulas:
    names = {part: f"{part}_{fast}_{slow}" for part in ("macd", "macd_signal", "macd_histogram")}
    macd, signal, histogram = names.values()
    text = f"ema(close, {fast}) - ema(close, {slow})"
    yield from _list_move_formulas(macd, 0, lambda bars: bars.macd[fast], text)
    yield from _list_move_formulas(signal, 0, lambda bars: bars.signal[fast], f"ema({macd}, {n})")
    yield from _list_move_formulas(
        histogram, 0, lambda bars: bars.macd[fast] - bars.signal[fast], f"{macd} - {signal}"
    )


def _list_move_formulas(
    name: str, warm_up: int, move: Callable[[Bars], Array], text: str, least: float = -math.inf
) -> _Formulas:
    """A difference of prices, and the same relative to the close."""
    yield name, Formula(warm_up, move, text, PRICE, least)
    yield (
        f"{name}_to_close",
        Formula(warm_up, lambda bars: move(bars) / bars.close, f"{name} / close", least=least),
    )


FORMULAS = dict(_list_formulas())
"""Every feature by its name. All functions above look formulas up here, so a planted fault can replace one."""


_RAW_COLUMNS = (
    "returns", "log_returns", "high_low_ratio", "close_open_ratio", "volume_ratio", "volume_price_trend",
    "momentum_5", "roc_5", "momentum_10", "roc_10", "momentum_20", "roc_20", "momentum_50", "roc_50", "sma_5",
    "ema_5", "price_to_sma_5", "price_to_ema_5", "sma_10", "ema_10", "price_to_sma_10", "price_to_ema_10",
    "sma_20", "ema_20", "price_to_sma_20", "price_to_ema_20", "sma_50", "ema_50", "price_to_sma_50",
    "price_to_ema_50", "sma_200", "ema_200", "price_to_sma_200", "price_to_ema_200", "volatility_20",
    "volatility_50", "atr_14", "rsi_14", "rsi_21", "rsi_30", "bb_upper_20", "bb_lower_20", "bb_position_20",
    "bb_upper_50", "bb_lower_50", "bb_position_50", "macd_12_26", "macd_signal_12_26", "macd_histogram_12_26",
    "macd_5_35", "macd_signal_5_35", "macd_histogram_5_35", "stoch_k_14", "stoch_d_14", "stoch_k_21",
    "stoch_d_21", "williams_r_14", "williams_r_21", "price_channel_high_20", "price_channel_low_20",
    "price_channel_position_20", "price_channel_high_50", "price_channel_low_50", "price_channel_position_50",
    "returns_lag_1", "volume_lag_1", "returns_lag_2", "volume_lag_2", "returns_lag_3", "volume_lag_3",
    "returns_lag_5", "volume_lag_5",
)  # fmt: skip


def _find_relative(column: str) -> str:
    """The feature that replaces a raw one in relative72; the same one if it is a ratio already."""
    if column == "volume_price_trend":
        return "volume_ratio_trend"
    return next(name for name in (f"{column}_slope", f"{column}_to_close", column) if name in FORMULAS)


SCHEMAS = {
    "raw72": Schema("raw72", _RAW_COLUMNS),
    "relative72": Schema("relative72", tuple(map(_find_relative, _RAW_COLUMNS))),
}

WARM_UP_BARS = max(FORMULAS[name].warm_up for schema in SCHEMAS.values() for name in schema.columns)
"""The bars at the beginning of a history that lack some feature of some schema."""
