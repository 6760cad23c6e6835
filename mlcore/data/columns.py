"""Which column of a table holds what, and its numbers. Every decision is noted in words for the import report."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from mlcore.errors import CandlesRefused

COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
NUMBERS = COLUMNS[1:]
SYMBOL = "symbol"
"""The column in which each row names its coin. It is compared, and not kept."""

MAX_ROWS = 4_000_000
"""Seven years of one-minute bars; more is a mistake or an attack."""

MAX_COLUMNS = 64
MAX_FIELD_BYTES = 200
"""A number or a time in text is short."""

EXPECTED = "expected the columns " + ", ".join(COLUMNS)

_TIMES = (
    "opentime", "timeopen", "starttime", "start", "timeperiodstart", "unix", "unixtimestamp", "unixtime", "epoch",
    "timestamp", "timestamps", "ts", "mts", "t", "time", "datetime", "datetimeutc", "date", "dateutc", "timeutc",
    "utctime", "utc", "gmttime", "candlebegintime", "begin", "indexlevel0",
)  # fmt: skip
"""The first of these that a table has is its time."""
_INDEXES = ("", "index", "unnamed0", "level0")
"""A counter of rows, or the time where nothing else is."""
_CLOSING_TIMES = ("closetime", "timeclose", "endtime", "end", "timeperiodend", "candleendtime")
_PRICES = {
    "open": ("open", "o", "priceopen", "openprice", "1open"),
    "high": ("high", "h", "pricehigh", "highprice", "2high"),
    "low": ("low", "l", "pricelow", "lowprice", "3low"),
    "close": ("close", "c", "priceclose", "closeprice", "4close", "closelast"),
}
_ALL_PRICES = frozenset(synonym for group in _PRICES.values() for synonym in group)
_UNIT = re.compile(r"[ _]*[(\[][^()\[\]]*[)\]]\s*$")
_VOLUMES = (
    "volume", "v", "vol", "basevolume", "volumebase", "baseassetvolume", "volumetraded", "volumefrom", "5volume",
)  # fmt: skip
_VOLUME_OF = re.compile(r"^vol(?:ume)?[ _(]+([a-z0-9]{2,12})\)?$", re.IGNORECASE)
_SYMBOLS = ("symbol", "pair", "ticker", "market", "instrument", "instrumentname", "instid")
_QUOTES = frozenset(
    ("usd", "usdt", "usdc", "busd", "tusd", "fdusd", "dai", "usde", "eur", "gbp", "jpy", "krw", "try", "aud", "brl", "cad",
     "chf", "currency", "quote")
)  # fmt: skip
_CLOCK = re.compile(r"^\d{1,2}:\d{2}(:\d{2})?$")
_DAY = re.compile(r"^\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|^\d{1,2}[-/.]\d{1,2}[-/.]\d{4}")
_SHOWN_NAMES = 20


@dataclass(frozen=True)
class Selection:
    """Where a table has the columns of COLUMNS, and SYMBOL if it has one, by position, and how that was decided."""

    positions: Mapping[str, int]
    layout: str
    notes: tuple[str, ...] = ()
    has_closing_times: bool = False
    """Whether there are closing times alone."""


@dataclass(frozen=True)
class RawTable:
    """Columns named as in COLUMNS, and SYMBOL where rows name their coin, before their values are parsed.

    They hold text, or what a typed file holds.
    """

    frame: pl.DataFrame
    layout: str
    notes: tuple[str, ...] = ()
    first_line: int | None = None
    """The line of the file that row 1 is in, counted from 1; None where a file has no lines."""
    has_closing_times: bool = False
    """Whether its times are from a column of closing times."""


def simplify_name(name: str) -> str:
    """`Open Time`, `open_time` and `openTime` are one name. The unit of a price says nothing: `Open (USDT)` is `open`."""
    bare = _keep_letters(_UNIT.sub("", name))
    return bare if bare in _ALL_PRICES else _keep_letters(name)


def _keep_letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def refuse_second_coin(table: pl.DataFrame) -> None:
    """Raises CandlesRefused with the first row that names another coin than a row before: `BTC/USD` and `btc-usd` are one.

    Rows may leave the coin out.
    """
    if SYMBOL not in table.columns:
        return
    written = table[SYMBOL].cast(pl.String)
    named = written.str.replace_all("[^A-Za-z0-9]", "").str.to_uppercase()
    stated = (named != "").fill_null(False).arg_true()
    others = stated.filter(named.gather(stated) != named[int(stated[0])]) if len(stated) else stated
    if len(others):
        row = int(others[0])
        first, other = written[int(stated[0])][:40], written[row][:40]
        raise CandlesRefused(
            f"is of {other!r}, not of {first!r} as row {stated[0] + 1:,}: a file has one coin's candles",
            row=row + 1,
        )


def count_prices(names: Sequence[str]) -> int:
    """How many of open, high, low and close are among the names. A header has all of them."""
    known = {simplify_name(name) for name in names}
    return sum(not known.isdisjoint(synonyms) for synonyms in _PRICES.values())


def has_time(names: Sequence[str]) -> bool:
    return not {simplify_name(name) for name in names}.isdisjoint(_TIMES)


def select_named(
    names: Sequence[str], samples: Sequence[Mapping[int, object]], times: Sequence[int] = ()
) -> Selection:
    """Find the columns by their names.

    `samples` are a few rows, {position: value}; `times` are the positions of columns with a type for times. Raises
    CandlesRefused.
    """
    if len(names) > MAX_COLUMNS:
        raise CandlesRefused(f"with {len(names):,} columns; {EXPECTED}")
    known = [simplify_name(name) for name in names]
    notes: list[str] = []
    found = {role: _find_one(known, names, synonyms) for role, synonyms in _PRICES.items()}
    time = _find_time(known, names, samples, times, notes)
    volume = _find_volume(known, names, samples, notes)
    positions = {"timestamp": time, **found, "volume": volume}
    missing = [column for column in COLUMNS if positions[column] is None]
    if missing:
        raise CandlesRefused(f"without the column {', '.join(missing)}; {EXPECTED}")
    chosen = {column: at for column, at in positions.items() if at is not None}
    notes += _describe_ignored(names, known, chosen)
    if (symbol := _find_one(known, names, _SYMBOLS)) is not None:
        chosen[SYMBOL] = symbol
    is_closing = time is not None and known[time] in _CLOSING_TIMES
    return Selection(chosen, _name_layout(known), tuple(notes), is_closing)


def _find_one(known: Sequence[str], names: Sequence[str], synonyms: Sequence[str]) -> int | None:
    """The position of the first synonym that is there. Raises CandlesRefused if it is there twice.

    Binance and Hyperliquid write `t` and `T`, `v` and `V`: the small letter is the bar's, the capital one another figure.
    """
    for synonym in synonyms:
        if len(synonym) == 1 and known.count(synonym) == 2 and list(names).count(synonym) == 1:
            return list(names).index(synonym)
        if known.count(synonym) > 1:
            name = names[known.index(synonym)][:40].strip()
            raise CandlesRefused(
                f"the column {name!r} is there more than once; a file has one coin's candles"
            )
        if synonym in known:
            return known.index(synonym)
    return None


def _find_time(
    known: Sequence[str],
    names: Sequence[str],
    samples: Sequence[Mapping[int, object]],
    times: Sequence[int],
    notes: list[str],
) -> int | None:
    first = samples[0] if samples else {}
    if "date" in known and "time" in known and _CLOCK.match(str(first.get(known.index("time"), "")).strip()):
        raise CandlesRefused(
            "day and time of day are in two columns; write them in one, as 2020-09-20 13:00:00"
        )
    if (at := _find_one(known, names, _TIMES)) is not None:
        return at
    others = [at for at in range(len(known)) if at not in _list_price_positions(known)]
    for candidates in ([at for at in others if known[at] in _INDEXES], others):
        for at in candidates:
            is_time = at in times or _DAY.match(str(first.get(at, "")).strip())
            if is_time and known[at] not in _CLOSING_TIMES:
                notes.append(f"time taken from the column {names[at].strip()[:40]!r}")
                return at
    return next((at for at, name in enumerate(known) if name in _CLOSING_TIMES), None)


def _list_price_positions(known: Sequence[str]) -> list[int]:
    return [at for at, name in enumerate(known) if name in _ALL_PRICES]


def _find_volume(
    known: Sequence[str], names: Sequence[str], samples: Sequence[Mapping[int, object]], notes: list[str]
) -> int | None:
    if (at := _find_one(known, names, _VOLUMES)) is not None:
        return at
    of = {at: m.group(1).lower() for at, name in enumerate(names) if (m := _VOLUME_OF.match(name.strip()))}
    if not of:
        return None
    symbol = _find_one(known, names, _SYMBOLS)
    traded = str(samples[0].get(symbol, "")).strip().lower() if samples and symbol is not None else ""
    candidates = [at for at, asset in of.items() if traded.startswith(asset)] or [
        at for at, asset in of.items() if asset not in _QUOTES
    ]
    listed = ", ".join(names[at].strip() for at in of)
    if not candidates:
        raise CandlesRefused(f"{listed} counts money, not coins; export the volume of the coin")
    if len(candidates) != 1:
        raise CandlesRefused(f"cannot tell which volume is the coin's: {listed}; name that column volume")
    notes.append(f"volume taken from {names[candidates[0]].strip()}")
    return candidates[0]


def _describe_ignored(names: Sequence[str], known: Sequence[str], chosen: Mapping[str, int]) -> list[str]:
    others = [at for at in range(len(names)) if at not in chosen.values()]
    if not others:
        return []
    listed = [names[at].strip()[:40] or "(without a name)" for at in others[:_SHOWN_NAMES]]
    more = f" and {len(others) - _SHOWN_NAMES} more" if len(others) > _SHOWN_NAMES else ""
    notes = [f"ignored columns: {', '.join(listed)}{more}"]
    if "adjclose" in known:
        notes.append(
            "volume taken as it is: check that it counts coins, Yahoo counts some in the quote currency"
        )
    return notes


def _name_layout(known: Sequence[str]) -> str:
    have = set(known)
    if "adjclose" in have:
        return "yfinance"
    if {"opentime", "closetime"} <= have:
        return "Binance"
    if {"unix", "date", "symbol"} <= have or {"unixtimestamp", "date", "symbol"} <= have:
        return "CryptoDataDownload"
    if have & {"", "indexlevel0", "unnamed0"}:
        return "pandas"
    if known[:5] == ["time", "open", "high", "low", "close"]:
        return "TradingView"
    if known[:6] == ["date", "open", "high", "low", "close", "volume"]:
        return "freqtrade"
    return "named columns"


# Numbers


def parse_numbers(table: pl.DataFrame) -> tuple[list[pl.Series], list[str]]:
    """The columns of NUMBERS as float64, and notes. Raises CandlesRefused with the row of the first that is none."""
    columns = [table[name] for name in NUMBERS]
    for column in columns:
        refuse_nulls(column, column, "is empty")
    texts = [column for column in columns if column.dtype == pl.String]
    for column in texts:
        refuse_long(column)
    notes = []
    if has_decimal_commas := _has_decimal_commas(texts):
        notes.append("decimal commas read as points")
    return [_parse_number(column, has_decimal_commas=has_decimal_commas) for column in columns], notes


def _has_decimal_commas(texts: Sequence[pl.Series]) -> bool:
    """Whether commas are decimal points in all these columns. Raises CandlesRefused where they may separate thousands."""
    with_comma = [column.filter(column.str.contains(",", literal=True)) for column in texts]
    if not any(len(column) for column in with_comma):
        return False
    if any(column.str.contains(".", literal=True).any() for column in texts):
        return False  # what has a comma is then no number, and is refused with its row
    commas = pl.concat(column.alias("") for column in with_comma).str.strip_chars()
    if commas.str.contains(r"^-?[1-9]\d{0,2}(,\d{3})+$").all():
        raise CandlesRefused(
            f"{commas[0]!r} may be a decimal comma or a separator of thousands: write decimal points, and no separators"
        )
    return True


def _parse_number(column: pl.Series, *, has_decimal_commas: bool) -> pl.Series:
    if column.dtype == pl.String:
        text = column.str.replace(",", ".", literal=True) if has_decimal_commas else column
        numbers = text.str.strip_chars().cast(pl.Float64, strict=False)
        has_commas = column.filter(numbers.is_null()).str.contains(",", literal=True).any()
        how = "; write decimal points, and no separators of thousands" if has_commas else ""
        refuse_nulls(numbers, column, f"is {{value!r}}, not a number{how}")
        return numbers
    if not column.dtype.is_numeric():
        raise CandlesRefused(f"{column.name} holds {column.dtype}, not numbers")
    return column.cast(pl.Float64)


def refuse_long(column: pl.Series) -> None:
    """Raises CandlesRefused for a text too long for a number or time: it would be copied many times."""
    sizes = column.str.len_bytes()
    if (sizes.max() or 0) <= MAX_FIELD_BYTES:  # type: ignore[operator]
        return
    row = int((sizes > MAX_FIELD_BYTES).arg_true()[0])
    reason = f"{column.name} has {sizes[row]:,} bytes; a field has at most {MAX_FIELD_BYTES:,}"
    raise CandlesRefused(reason, row=row + 1)


def refuse_nulls(parsed: pl.Series, written: pl.Series, reason: str) -> None:
    if not parsed.null_count():
        return
    row = int(parsed.is_null().arg_true()[0])
    value = str(written[row])[:40]
    raise CandlesRefused(f"{parsed.name} {reason.format(value=value)}", row=row + 1)
