"""Candles from an exchange, through ccxt."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import polars as pl

from common.errors import InvalidInput, Unavailable
from mlcore.data.readers import COLUMNS
from mlcore.data.validation import validate_candles
from mlcore.errors import CandlesRefused

PAGE_ROWS = 1000
MAX_TRIES = 4
FIRST_PAUSE_SECONDS = 0.5


def fetch(pair: str, *, exchange: str, interval: str, since: datetime) -> pl.DataFrame:
    """Fetch all complete candles of `pair` from `since` on, and check their form.

    Raises InvalidInput for an unknown exchange, pair or interval, Unavailable when the exchange does not answer.
    """
    import ccxt  # a slow import that only this function needs

    if exchange not in ccxt.exchanges:
        raise InvalidInput(f"There is no exchange {exchange!r} in ccxt.", field="exchange")
    client = getattr(ccxt, exchange)({"enableRateLimit": True})
    _call_with_retries(ccxt, exchange, client.load_markets)
    if pair not in client.markets:
        raise InvalidInput(f"{exchange} does not trade {pair}.", field="coin")
    if interval not in (client.timeframes or {}):
        raise InvalidInput(f"{exchange} has no {interval} candles.", field="interval")
    step = int(client.parse_timeframe(interval) * 1000)
    now = int(client.milliseconds())
    start = int(since.timestamp() * 1000)
    if start >= now:
        raise InvalidInput("since is not in the past.", field="since")
    rows: list[list[float]] = []
    while start + step <= now:  # until a page has no new bar; the incomplete last bar is left out
        ask = partial(client.fetch_ohlcv, pair, interval, since=start, limit=PAGE_ROWS)
        page = _call_with_retries(ccxt, exchange, ask)
        fresh = [row for row in page if row[0] >= start and row[0] + step <= now]
        if not fresh:
            break
        rows += fresh
        start = int(fresh[-1][0]) + step
    return _build_frame(rows, f"{exchange} {pair}")


def _call_with_retries(ccxt: Any, exchange: str, ask: Callable[[], Any]) -> Any:
    """Call the exchange, and retry after a pause when the network or the exchange fails."""
    for attempt in range(MAX_TRIES):
        try:
            return ask()
        except ccxt.NetworkError as error:
            if attempt == MAX_TRIES - 1:
                raise Unavailable(
                    f"{exchange} does not answer ({type(error).__name__}: {str(error)[:200]}). Try again later."
                ) from error
            time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
        except ccxt.BaseError as error:
            raise InvalidInput(f"{exchange} refuses: {str(error)[:300]}") from error
    raise AssertionError("every try returns or raises")


def _build_frame(rows: list[list[float]], source: str) -> pl.DataFrame:
    if not rows:
        raise InvalidInput(f"{source}: the exchange has no complete candle since then.", field="since")
    columns: dict[str, Any] = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    times = pl.Series("timestamp", [int(t) for t in columns.pop("timestamp")], dtype=pl.Int64)
    stamps = times.cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    numbers = {name: pl.Series(name, values, dtype=pl.Float64) for name, values in columns.items()}
    try:
        return validate_candles(pl.DataFrame({"timestamp": stamps, **numbers}), source)
    except CandlesRefused as refused:
        raise InvalidInput(str(refused)) from refused


def parse_since(text: str) -> datetime:
    """Parse a date or time, in UTC unless it names a zone. Raises InvalidInput."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"since: {text!r} is not a date such as 2020-09-20.", field="since") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
