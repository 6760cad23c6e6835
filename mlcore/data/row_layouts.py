"""The columns of rows without names. Exchanges write them in several orders, which their figures tell apart.

A layout fits where every row of a sample can be a candle in it: high and low enclose open and close, a sum of money is
volume times price, a count is a whole number. Rows that fit none are refused, and so are rows that fit several which make
other candles of them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mlcore.data.columns import COLUMNS, EXPECTED, Selection
from mlcore.data.tables.names import simplify_name
from mlcore.data.tables.volumes import is_money, prove_volume
from mlcore.errors import CandlesRefused

SIX_COLUMNS = "six columns without names, as ccxt and freqtrade write them"

_TOHLC = ("timestamp", "open", "high", "low", "close")
_TOCHL = ("timestamp", "open", "close", "high", "low")
_BINANCE = ("close_time", "quote_volume", "count", "taker_buy_volume", "taker_buy_quote_volume", "ignore")
_WHOLE = re.compile(r"^\d+(\.0)?$")
_FLAGS = frozenset(("0", "1", "true", "false"))

Row = dict[str, str]
Rule = Callable[[Row], bool]


def _encloses(row: Row) -> bool:
    opened, high, low, closed = (float(row[name]) for name in _TOHLC[1:])
    return 0 < low <= min(opened, closed) and max(opened, closed) <= high


def _is_whole(name: str) -> Rule:
    return lambda row: bool(_WHOLE.match(row[name].strip()))


def _is_flag(name: str) -> Rule:
    return lambda row: row[name].strip().lower() in _FLAGS


def _is_mean(row: Row) -> bool:
    """A mean price of no trades is 0."""
    mean = float(row["vwap"])
    return float(row["low"]) <= mean <= float(row["high"]) or (mean == 0 and float(row["volume"]) == 0)


def _closes_later(row: Row) -> bool:
    return 0 <= float(row["timestamp"]) <= float(row["close_time"])


@dataclass(frozen=True)
class _Layout:
    writer: str
    names: tuple[str, ...]
    rules: tuple[Rule, ...]
    money: str = ""
    """The column with the volume in the quote currency, which proves the one with the volume."""

    @property
    def is_usual(self) -> bool:
        """Whether the prices stand in the order of their name, OHLC."""
        return self.names[:5] == _TOHLC

    def fits(self, rows: Sequence[Sequence[str]], more: Sequence[Sequence[str]]) -> bool:
        named, others = ([dict(zip(self.names, row, strict=True)) for row in part] for part in (rows, more))
        try:
            are_right = all(rule(row) for row in named for rule in self.rules)
            are_right = are_right and (not self.money or _is_money(named + others, self.money))
            are_right = are_right and ("vwap" not in self.names or _are_means(named + others))
            return are_right and (self.is_usual or _is_continuous(named))
        except ValueError:
            return False

    def encloses(self, rows: Sequence[Sequence[str]]) -> bool:
        """Whether all these rows, which fit, are possible candles."""
        try:
            return all(_encloses(dict(zip(self.names, row, strict=True))) for row in rows)
        except ValueError:
            return False

    def read(self, rows: Sequence[Sequence[str]], name: str) -> tuple[float | str, ...]:
        """A column of COLUMNS."""
        return tuple(_read_number(row[self.names.index(name)]) for row in rows)

    def select(self, rows: Sequence[Sequence[str]]) -> Selection:
        """Raises CandlesRefused if the figures of the rows show that the volume counts something else than coins."""
        notes: list[str] = []
        if not self.is_usual:
            notes.append(f"columns taken as {', '.join(self.names)}: no other order makes candles of them")
        positions = {name: self.names.index(name) for name in COLUMNS}
        samples = [dict(enumerate(row)) for row in rows]
        known = [simplify_name(name) for name in self.names]
        positions["volume"] = prove_volume(positions, known, self.names, samples, notes)
        if ignored := [name for at, name in enumerate(self.names) if at not in positions.values()]:
            notes.append(f"ignored columns: {', '.join(ignored)}")
        return Selection(positions, self.writer, tuple(notes))


def _read_number(text: str) -> float | str:
    """Other text stays as it is: another check refuses it."""
    try:
        return float(text)
    except ValueError:
        return text


def _is_money(rows: Sequence[Row], name: str) -> bool:
    """Whether it is volume times price wherever something was traded. Rows without trades prove nothing."""
    traded = [row for row in rows if float(row["volume"]) > 0]
    columns = ([float(row[column]) for row in traded] for column in (name, "volume", "low", "high"))
    return bool(traded) and is_money(*columns)


def _are_means(rows: Sequence[Row]) -> bool:
    """Rows without trades do not tell a mean price from a volume."""
    return all(map(_is_mean, rows)) and any(float(row["volume"]) > 0 for row in rows)


def _is_continuous(rows: Sequence[Row]) -> bool:
    """Whether a bar opens where the one before closed, rather than the other way round."""
    prices = [(float(row["open"]), float(row["close"])) for row in rows]
    if rows[0]["timestamp"] > rows[-1]["timestamp"]:
        prices.reverse()
    right = sum(abs(after[0] - before[1]) for before, after in pairwise(prices))
    turned = sum(abs(after[1] - before[0]) for before, after in pairwise(prices))
    return right <= turned


_LAYOUTS = (
    _Layout(SIX_COLUMNS, (*_TOHLC, "volume"), (_encloses,)),
    _Layout("Bitfinex", (*_TOCHL, "volume"), (_encloses,)),
    _Layout("Coinbase", ("timestamp", "low", "high", "open", "close", "volume"), (_encloses,)),
    _Layout("Gate.io", ("timestamp", "volume", "close", "high", "low", "open"), (_encloses,)),
    _Layout("Bybit", (*_TOHLC, "volume", "turnover"), (_encloses,), "turnover"),
    _Layout("KuCoin", (*_TOCHL, "volume", "turnover"), (_encloses,), "turnover"),
    _Layout("Kraken", (*_TOHLC, "volume", "count"), (_is_whole("count"),)),
    _Layout("Kraken", (*_TOHLC, "vwap", "volume", "count"), (_is_mean, _is_whole("count"))),
    _Layout(
        "MEXC",
        (*_TOHLC, "volume", "close_time", "quote_volume"),
        (_encloses, _closes_later),
        "quote_volume",
    ),
    _Layout("Bitget", (*_TOHLC, "volume", "usdt_volume", "quote_volume"), (_encloses,), "quote_volume"),
    _Layout(
        "Gate.io",
        ("timestamp", "quote_volume", "close", "high", "low", "open", "volume", "is_closed"),
        (_encloses, _is_flag("is_closed")),
        "quote_volume",
    ),
    _Layout(
        "OKX",
        (*_TOHLC, "volume", "volCcy", "volCcyQuote", "confirm"),
        (_encloses, _is_flag("confirm")),
        "volCcyQuote",
    ),
    _Layout(
        "OKX",
        (*_TOHLC, "contracts", "volume", "volCcyQuote", "confirm"),
        (_encloses, _is_flag("confirm")),
        "volCcyQuote",
    ),
    _Layout("Binance", (*_TOHLC, "volume", *_BINANCE[:5]), (_closes_later,)),
    _Layout("Binance", (*_TOHLC, "volume", *_BINANCE), (_closes_later,)),
)


def select_positional(rows: Sequence[Sequence[str]], more: Sequence[Sequence[str]] = ()) -> Selection:
    """Find the columns of rows without names, all of one width.

    `more` are rows from the middle, which tell about the volume where nothing was traded at first. Raises CandlesRefused.
    """
    width = len(rows[0])
    more = [
        row
        for row in more
        if len(row) == width and all(isinstance(_read_number(text), float) for text in row[1:5])
    ]
    known = [layout for layout in _LAYOUTS if len(layout.names) == width]
    fitting = [layout for layout in known if layout.fits(rows, more)]
    fitting = [layout for layout in fitting if layout.encloses(rows)] or fitting
    usual = [layout for layout in fitting if layout.is_usual]
    for name in COLUMNS:
        if len({layout.read((*rows, *more), name) for layout in fitting}) > 1:
            raise CandlesRefused(
                f"{width} columns without names, and more than one of them may be the {name}: write a header line that names"
                f" them; {EXPECTED}"
            )
    if len(chosen := usual[:1] or fitting) == 1:
        return chosen[0].select((*rows, *more))
    if width == len(COLUMNS):  # read as usual, so that the row that is no candle is named
        return known[0].select(rows)
    raise CandlesRefused(f"{width} columns without names: write a header line that names them; {EXPECTED}")
