"""Which column of a table holds what, and its numbers. Every decision is noted in words for the import report."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from mlcore.data.tables.names import (
    ALL_PRICES,
    COINS,
    EPOCHS,
    INDEXES,
    PRICES,
    TIMES,
    find_one,
    find_zone,
    is_closing,
    is_opening,
    is_utc,
    is_zone_column,
    simplify_name,
)
from mlcore.data.tables.volumes import Samples, find_volume, prove_volume, read_figure
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

_LEAST_EPOCH, _LEAST_MILLISECONDS, _MINUTE = 10**9, 10**11, 60
_FEWEST_TIMES, _CLOSING_S = 2, 1.0
"""How near to a closing time a time is the same, in seconds: some end a millisecond before the next bar."""
_CLOCK = re.compile(r"^\d{1,2}:\d{2}(:\d{2})?(\.0+)?$|^\d{1,6}$")
"""In a column beside a date: 13:00, 130000 or 13. No epoch has so few digits."""
_GROUPED = {",": r"^\s*-?\d{1,3}(,\d{3})+\.\d+\s*$", ".": r"^\s*-?\d{1,3}(\.\d{3})+,\d+\s*$"}
"""Numbers with a separator of thousands and a decimal mark, by the separator."""
_DAY = re.compile(r"^\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|^\d{1,2}[-/.]\d{1,2}[-/.]\d{4}")
_SHOWN_NAMES = 20
VOLUME_OF_PORTALS = (
    "volume taken as it is: check that it counts coins, Yahoo counts some in the quote currency"
)


@dataclass(frozen=True)
class Selection:
    """Where a table has the columns of COLUMNS, and SYMBOL if it has one, by position, and how that was decided."""

    positions: Mapping[str, int]
    layout: str
    notes: tuple[str, ...] = ()
    has_closing_times: bool = False
    """Whether there are closing times alone."""
    zone: str = ""
    """The zone, other than UTC, that a name or a column says the times are in."""


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
    zone: str = ""
    """As in Selection."""


def read_coin(table: pl.DataFrame) -> list[str]:
    """A note of the coin that the rows name, if they do. They may leave it out.

    Raises CandlesRefused with the first row that names another coin than a row before: `BTC/USD` and `btc-usd` are one.
    """
    if SYMBOL not in table.columns:
        return []
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
    return [f"the rows name the coin {written[int(stated[0])][:40]!r}"] if len(stated) else []


def select_named(
    names: Sequence[str], samples: Samples, times: Sequence[int] = (), more: Samples = ()
) -> Selection:
    """Find the columns by their names.

    `samples` are the first rows, {position: value}, and `more` a few from the middle, which tell about the volume where
    nothing was traded at first. `times` are the positions of columns with a type for times. Raises CandlesRefused.
    """
    if len(names) > MAX_COLUMNS:
        raise CandlesRefused(f"with {len(names):,} columns; {EXPECTED}")
    known = [simplify_name(name) for name in names]
    if "T" in names and not {"O", "H", "L", "C"} <= set(
        names
    ):  # beside small letters and words, the end of the bar
        known[list(names).index("T")] = "endtime"
    notes: list[str] = []
    found = {role: find_one(known, names, synonyms) for role, synonyms in PRICES.items()}
    time = _find_time(known, names, samples, times, notes)
    symbol = _find_coin(known, names, samples)
    volume = find_volume(known, names, samples, symbol, notes)
    positions = {"timestamp": time, **found, "volume": volume}
    missing = [column for column in COLUMNS if positions[column] is None]
    if missing:
        raise CandlesRefused(f"without the column {', '.join(missing)}; {EXPECTED}")
    chosen = {column: at for column, at in positions.items() if at is not None}
    chosen["volume"] = prove_volume(chosen, known, names, (*samples, *more), notes)
    notes += _describe_ignored(names, known, chosen)
    if symbol is not None:
        chosen[SYMBOL] = symbol
    return Selection(
        chosen,
        _name_layout(known),
        tuple(notes),
        _is_closing(chosen["timestamp"], known, samples),
        _find_zone(chosen["timestamp"], known, names, samples),
    )


def _find_time(
    known: Sequence[str],
    names: Sequence[str],
    samples: Samples,
    times: Sequence[int],
    notes: list[str],
) -> int | None:
    first = samples[0] if samples else {}
    clocks = [at for at, name in enumerate(known) if name in ("time", "hour", "timeofday", "tod")]
    if "date" in known and any(_CLOCK.match(str(first.get(at, "")).strip()) for at in clocks):
        raise CandlesRefused(
            "day and time of day are in two columns; write them in one, in UTC, as 2020-09-20T13:00:00Z"
        )
    opening = [name for name in known if is_opening(name) and name not in TIMES]
    if (at := find_one(known, names, (*opening, *TIMES))) is not None:
        return at
    others = [at for at in range(len(known)) if known[at] not in ALL_PRICES]
    for candidates in ([at for at in others if known[at] in INDEXES], others):
        for at in candidates:
            is_time = at in times or _DAY.match(str(first.get(at, "")).strip())
            if is_time and not is_closing(known[at]):
                notes.append(f"time taken from the column {names[at].strip()[:40]!r}")
                return at
    for name in EPOCHS:
        if name in known and _are_epochs(samples, known.index(name)):
            notes.append(f"time taken from the column {name!r}")
            return known.index(name)
    return next((at for at, name in enumerate(known) if is_closing(name)), None)


def _are_epochs(samples: Samples, at: int) -> bool:
    """Whether these are full minutes."""
    numbers = [read_figure(row.get(at)) for row in samples]
    return bool(numbers) and all(n is not None and n >= _LEAST_EPOCH and n % _MINUTE == 0 for n in numbers)


def _is_closing(time: int, known: Sequence[str], samples: Samples) -> bool:
    """Whether the times are closing times by their name, or because they repeat a column of closing times."""
    if is_closing(known[time]) or _is_bitmex(known):
        return True
    if is_opening(known[time]):
        return False
    opened = _list_moments(samples, time)
    if len(opened) < _FEWEST_TIMES or abs(opened[1] - opened[0]) <= 2 * _CLOSING_S:
        return False
    closed = [_list_moments(samples, at) for at, name in enumerate(known) if at != time and is_closing(name)]
    return any(
        len(each) == len(opened)
        and all(abs(end - moment) <= _CLOSING_S for end, moment in zip(each, opened, strict=True))
        for each in closed
    )


def _list_moments(samples: Samples, at: int) -> list[float]:
    """Seconds since 1970; empty where one value is no time."""
    moments = [_read_moment(row.get(at)) for row in samples]
    known = [moment for moment in moments if moment is not None]
    return known if len(known) == len(moments) else []


def _read_moment(value: object) -> float | None:
    """Seconds since 1970 of an epoch of any unit, or a date in ISO form; None for anything else."""
    if (number := read_figure(value)) is not None:
        while number >= _LEAST_MILLISECONDS:
            number /= 1000
        return number
    try:
        moment = datetime.fromisoformat(str(value).strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _is_bitmex(known: Sequence[str]) -> bool:
    """BitMEX calls the time at which a bar closes `timestamp`."""
    return {"timestamp", "homenotional", "foreignnotional", "lastsize"} <= set(known)


def _find_zone(time: int, known: Sequence[str], names: Sequence[str], samples: Samples) -> str:
    """By the name of the column of times, or a column of zones; empty if it is UTC or unknown."""
    stated = [find_zone(names[time])]
    if "tickvol" in known:
        stated.append("of MetaTrader's server")
    columns = [at for at, name in enumerate(known) if is_zone_column(name)]
    stated += [str(row[at]).strip() for row in samples for at in columns if row.get(at) is not None]
    return next((zone[:40] for zone in stated if not is_utc(zone)), "")


def _find_coin(known: Sequence[str], names: Sequence[str], samples: Samples) -> int | None:
    """The column that names the coin of each row. A number is no name: `base` may be a volume."""
    for name in COINS:
        if (at := find_one(known, names, (name,))) is not None and not any(
            read_figure(row.get(at)) is not None for row in samples
        ):
            return at
    return None


def _describe_ignored(names: Sequence[str], known: Sequence[str], chosen: Mapping[str, int]) -> list[str]:
    others = [at for at in range(len(names)) if at not in chosen.values()]
    if not others:
        return []
    listed = [names[at].strip()[:40] or "(without a name)" for at in others[:_SHOWN_NAMES]]
    more = f" and {len(others) - _SHOWN_NAMES} more" if len(others) > _SHOWN_NAMES else ""
    notes = [f"ignored columns: {', '.join(listed)}{more}"]
    if not {"adjclose", "dividends"}.isdisjoint(known):
        notes.append(VOLUME_OF_PORTALS)
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
    if thousands := _find_thousands(texts):
        notes = [f"{'commas' if thousands == ',' else 'points'} read as separators of thousands"]
        return [
            _parse_number(column, thousands, is_decimal_comma=thousands == ".") for column in columns
        ], notes
    is_decimal_comma = _has_decimal_commas(texts)
    notes = ["decimal commas read as points"] if is_decimal_comma else []
    return [_parse_number(column, "", is_decimal_comma=is_decimal_comma) for column in columns], notes


def _find_thousands(texts: Sequence[pl.Series]) -> str:
    """The mark that separates thousands, where some number has it before its decimal mark; empty if none has both."""
    if not all(any(column.str.contains(mark, literal=True).any() for column in texts) for mark in _GROUPED):
        return ""
    for mark, pattern in _GROUPED.items():
        if any(column.str.contains(pattern).any() for column in texts):
            return mark
    return ""


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


def _parse_number(column: pl.Series, thousands: str, *, is_decimal_comma: bool) -> pl.Series:
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        if thousands:  # a mark in another place stays, so that its number is refused
            grouped = rf"^-?\d{{1,3}}(\{thousands}\d{{3}})+([.,]\d+)?$"
            text = pl.select(
                pl.when(text.str.contains(grouped))
                .then(text.str.replace_all(thousands, "", literal=True))
                .otherwise(text)
            ).to_series()
        text = text.str.replace(",", ".", literal=True) if is_decimal_comma else text
        numbers = text.cast(pl.Float64, strict=False)
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
