"""`relative72` as one would write it in pandas, column by column: the peer that features are measured against."""

import numpy as np
import pandas as pd


def relative72(candles: pd.DataFrame) -> pd.DataFrame:
    """72 columns for every bar, in the schema's order; NaN until a window is full."""
    high, low, close, volume = (candles[name] for name in ("high", "low", "close", "volume"))
    returns = close.pct_change()
    volume_ratio = volume / volume.rolling(20).mean()
    columns = {
        "returns": returns,
        "log_returns": np.log(close / close.shift()),
        "high_low_ratio": high / low,
        "close_open_ratio": close / candles["open"],
        "volume_ratio": volume_ratio,
        "volume_ratio_trend": volume_ratio * returns,
    }
    for n in (5, 10, 20, 50):
        columns[f"momentum_{n}"] = close / close.shift(n) - 1
        columns[f"roc_{n}"] = close.pct_change(n) * 100
    for n in (5, 10, 20, 50, 200):
        sma, ema = close.rolling(n).mean(), close.ewm(span=n).mean()
        columns[f"sma_{n}_slope"] = sma / sma.shift(5) - 1
        columns[f"ema_{n}_slope"] = ema / ema.shift(5) - 1
        columns[f"price_to_sma_{n}"] = close / sma
        columns[f"price_to_ema_{n}"] = close / ema
    for n in (20, 50):
        columns[f"volatility_{n}"] = returns.rolling(n).std()
    columns["atr_14_to_close"] = (high - low).rolling(14).mean() / close
    change = close.diff()
    for n in (14, 21, 30):
        gains = change.clip(lower=0).rolling(n).mean()
        losses = (-change).clip(lower=0).rolling(n).mean()
        columns[f"rsi_{n}"] = 100 - 100 / (1 + gains / losses)
    for n in (20, 50):
        sma, deviation = close.rolling(n).mean(), close.rolling(n).std()
        upper, lower = sma + 2 * deviation, sma - 2 * deviation
        columns[f"bb_upper_{n}_to_close"] = upper / close - 1
        columns[f"bb_lower_{n}_to_close"] = lower / close - 1
        columns[f"bb_position_{n}"] = (close - lower) / (upper - lower)
    for fast, slow, smooth in ((12, 26, 9), (5, 35, 5)):
        macd = close.ewm(span=fast).mean() - close.ewm(span=slow).mean()
        signal = macd.ewm(span=smooth).mean()
        columns[f"macd_{fast}_{slow}_to_close"] = macd / close
        columns[f"macd_signal_{fast}_{slow}_to_close"] = signal / close
        columns[f"macd_histogram_{fast}_{slow}_to_close"] = (macd - signal) / close
    williams = {}
    for n in (14, 21):
        highest, lowest = high.rolling(n).max(), low.rolling(n).min()
        k = 100 * (close - lowest) / (highest - lowest)
        columns[f"stoch_k_{n}"] = k
        columns[f"stoch_d_{n}"] = k.rolling(3).mean()
        williams[f"williams_r_{n}"] = -100 * (highest - close) / (highest - lowest)
    columns |= williams
    for n in (20, 50):
        highest, lowest = high.rolling(n).max(), low.rolling(n).min()
        columns[f"price_channel_high_{n}_to_close"] = highest / close - 1
        columns[f"price_channel_low_{n}_to_close"] = lowest / close - 1
        columns[f"price_channel_position_{n}"] = (close - lowest) / (highest - lowest)
    for lag in (1, 2, 3, 5):
        columns[f"returns_lag_{lag}"] = returns.shift(lag)
        columns[f"volume_lag_{lag}"] = volume_ratio.shift(lag)
    return pd.DataFrame(columns)
