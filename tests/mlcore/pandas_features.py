"""The 72 features by pandas, straight from their definitions: what `mlcore.features.indicators` is checked against."""

import pandas as pd
import polars as pl


def raw(frame: pl.DataFrame) -> pd.DataFrame:
    columns = {name: frame[name].to_numpy() for name in ("open", "high", "low", "close", "volume")}
    bars = pd.DataFrame(columns)
    close, high, low, volume = bars["close"], bars["high"], bars["low"], bars["volume"]
    out: dict[str, pd.Series] = {}
    returns = close.pct_change()
    out["returns"] = returns
    out["log_returns"] = (1 + returns).map(_log)
    out["high_low_ratio"] = high / low
    out["close_open_ratio"] = close / bars["open"]
    out["volume_ratio"] = volume / volume.rolling(20).mean()
    out["volume_price_trend"] = volume * returns
    for n in (5, 10, 20, 50):
        out[f"momentum_{n}"] = close / close.shift(n) - 1
        out[f"roc_{n}"] = (close / close.shift(n) - 1) * 100
    for n in (5, 10, 20, 50, 200):
        out[f"sma_{n}"] = close.rolling(n).mean()
        out[f"ema_{n}"] = close.ewm(span=n, adjust=True).mean()
        out[f"price_to_sma_{n}"] = close / out[f"sma_{n}"]
        out[f"price_to_ema_{n}"] = close / out[f"ema_{n}"]
    out["volatility_20"] = returns.rolling(20).std()
    out["volatility_50"] = returns.rolling(50).std()
    out["atr_14"] = (high - low).rolling(14).mean()
    for n in (14, 21, 30):
        gain = close.diff().clip(lower=0).rolling(n).mean()
        loss = (-close.diff()).clip(lower=0).rolling(n).mean()
        out[f"rsi_{n}"] = 100 - 100 / (1 + gain / loss)
    for n in (20, 50):
        middle, spread = close.rolling(n).mean(), 2 * close.rolling(n).std()
        out[f"bb_upper_{n}"] = middle + spread
        out[f"bb_lower_{n}"] = middle - spread
        out[f"bb_position_{n}"] = (close - (middle - spread)) / (2 * spread)
    for fast, slow, smooth in ((12, 26, 9), (5, 35, 5)):
        macd = close.ewm(span=fast, adjust=True).mean() - close.ewm(span=slow, adjust=True).mean()
        signal = macd.ewm(span=smooth, adjust=True).mean()
        out[f"macd_{fast}_{slow}"] = macd
        out[f"macd_signal_{fast}_{slow}"] = signal
        out[f"macd_histogram_{fast}_{slow}"] = macd - signal
    for n in (14, 21):
        lowest, highest = low.rolling(n).min(), high.rolling(n).max()
        out[f"stoch_k_{n}"] = 100 * (close - lowest) / (highest - lowest)
        out[f"stoch_d_{n}"] = out[f"stoch_k_{n}"].rolling(3).mean()
    for n in (14, 21):
        lowest, highest = low.rolling(n).min(), high.rolling(n).max()
        out[f"williams_r_{n}"] = -100 * (highest - close) / (highest - lowest)
    for n in (20, 50):
        lowest, highest = low.rolling(n).min(), high.rolling(n).max()
        out[f"price_channel_high_{n}"] = highest
        out[f"price_channel_low_{n}"] = lowest
        out[f"price_channel_position_{n}"] = (close - lowest) / (highest - lowest)
    for k in (1, 2, 3, 5):
        out[f"returns_lag_{k}"] = returns.shift(k)
        out[f"volume_lag_{k}"] = out["volume_ratio"].shift(k)
    return pd.DataFrame(out)


def relative(frame: pl.DataFrame) -> pd.DataFrame:
    """Every feature in the price's unit made a ratio, in its old place."""
    out = raw(frame)
    close = pd.Series(frame["close"].to_numpy())
    for column in out.columns:
        if column.startswith(("sma_", "ema_")):
            out[column] = out[column].pct_change(5)
        elif column.startswith(("macd_", "atr_")):
            out[column] = out[column] / close
        elif column.startswith(("bb_upper", "bb_lower", "price_channel_high", "price_channel_low")):
            out[column] = out[column] / close - 1
    out["volume_price_trend"] = out["volume_ratio"] * out["returns"]
    return out


def _log(value: float) -> float:
    import math

    return math.log(value)
