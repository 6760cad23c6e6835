"""The opening times of a table, in UTC: epochs of any unit, ISO dates, other dates that can be read in one way only.

Nothing is guessed. A day and month that could be exchanged, or a zone that is not unambiguous, is refused.
"""

import re

import polars as pl

from mlcore.data.columns import refuse_long, refuse_nulls
from mlcore.errors import CandlesRefused

UNITS = {"s": "seconds", "ms": "milliseconds", "µs": "microseconds", "ns": "nanoseconds"}
_NAIVE, _DAYS = "times without a zone taken as UTC", "days taken as midnight, UTC"
_CALENDAR_DAYS = (19_700_101, 21_991_231)
"""Whole numbers between these are days, written as 20200920: no epoch is so small. With an hour, minute and second, as
20200920130000, they would be epochs of 2032 to 2039, of 1976, or after 2500."""
_LEAST_EPOCH = 100_000_000
"""1973 in seconds. Smaller numbers are counters, days or years."""
_FIRST_OF_UNIT = {"ms": 10**11, "µs": 10**14, "ns": 10**17}
"""Below the first, seconds: each unit covers the years 1973 to 5138."""

_FIRST_COIN_MS = 1_230_768_000_000
"""2009. Counts of another unit, or from another day than 1970, look like epochs of earlier years."""

_HOW = "write 2020-09-20T00:00:00Z, or an epoch in seconds, milliseconds, microseconds or nanoseconds"
_EPOCH = re.compile(r"^\d+(\.\d*)?([eE]\+?\d+)?$")
_WHOLE = r"^\d{1,19}$"
_USUAL_FORMATS = {
    re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$"): "%Y-%m-%d %H:%M:%S",
    re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$"): "%Y-%m-%dT%H:%M:%S",
    re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"): "%Y-%m-%dT%H:%M:%SZ",
    re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:?\d\d$"): "%Y-%m-%d %H:%M:%S%z",
    re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:?\d\d$"): "%Y-%m-%dT%H:%M:%S%z",
    re.compile(r"^\d{8}T\d{6}Z$"): "%Y%m%dT%H%M%SZ",
    re.compile(r"^\d{8} \d{6}$"): "%Y%m%d %H%M%S",
}
"""Read at once; whatever does not fit is read part by part, which takes longer."""
_MONTH = (
    "(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    "|Nov(?:ember)?|Dec(?:ember)?|[A-Z]{3}|[a-z]{3})"
)
_PARTS = (
    r"^(?:(?<year>\d{4})(?<sep>[-/.])(?<month>\d{1,2})[-/.](?<day>\d{1,2})"
    r"|(?<first>\d{1,2})(?<mark>[-/.])(?<second>\d{1,2})[-/.](?<last>\d{4})"
    rf"|(?:[A-Z][a-z]{{2,8}},? )?(?<named>\d{{1,2}}[ -]{_MONTH}[ -]\d{{4}}|{_MONTH} \d{{1,2}},? \d{{4}}))"
    r"(?:(?:[Tt]|,? )(?<hour>\d{1,2})(?::(?<minute>\d{2})(?::(?<clock>\d{2})(?:[.,](?<fraction>\d{1,3})(?<finer>\d*))?)?)?"
    r"(?:[ -]?(?<half>AM|PM|am|pm))?)?"
    r" ?(?:(?<utc>Z|z|UTC|GMT)|(?:UTC|GMT)?(?<offset>[+-]\d{2}(?::?\d{2})?)|(?:UTC|GMT)(?<short>[+-]\d)"
    r"|(?<zone>[A-Z][A-Za-z]+/[A-Za-z_/-]+))?$"
)
_ABBREVIATION = re.compile(r"[\d:] ?([A-Z]{2,5})$")


def parse_times(column: pl.Series, zone: str = "") -> tuple[pl.Series, list[str]]:
    """`column` as Datetime(ms, UTC), and notes of what was decided.

    `zone` is what a name or another column says of times that do not name theirs. Raises CandlesRefused with the row.
    """
    times, notes = _parse(column)
    if zone and not {_NAIVE, _DAYS}.isdisjoint(notes):
        raise CandlesRefused(
            f"the times are of the zone {zone!r}, as the file says, but have no offset; write them in UTC, with Z at the end"
        )
    return times, notes


def _parse(column: pl.Series) -> tuple[pl.Series, list[str]]:
    refuse_nulls(column, column, "is empty")
    if column.dtype == pl.String:
        refuse_long(column)
        return _parse_text(column.str.strip_chars())
    if column.dtype == pl.Date:
        return column.cast(pl.Datetime("ms")).dt.replace_time_zone("UTC"), [_DAYS]
    if isinstance(column.dtype, pl.Datetime):
        return _convert_datetimes(column)
    if column.dtype.is_numeric():
        # A column of small integers cannot be compared with large ones, and decimals are those of a database.
        is_wide = column.dtype.is_float() or column.dtype in (pl.Int64, pl.UInt64, pl.Int128)
        return _parse_epochs(
            column if is_wide else column.cast(pl.Float64 if column.dtype.is_decimal() else pl.Int64)
        )
    raise CandlesRefused(f"timestamp holds {column.dtype}, not times")


# Epochs


def _parse_epochs(numbers: pl.Series) -> tuple[pl.Series, list[str]]:
    """Each number's size tells its unit. Milliseconds and microseconds may mix, as in Binance's files across 2025."""
    if (clocks := _parse_calendar_clocks(numbers)) is not None:
        return clocks, [_NAIVE]
    if numbers.dtype.is_float():
        _refuse_where(~numbers.is_finite(), numbers, f"is {{value}}, not a time; {_HOW}")
    elif numbers.is_between(*_CALENDAR_DAYS).all():
        return _parse_calendar_days(numbers)
    _refuse_where(numbers < _LEAST_EPOCH, numbers, f"is {{value}}, not a time; {_HOW}")
    units = _tell_units(numbers)
    present = units.unique(maintain_order=True).to_list()
    if len(present) > 1 and set(present) != {"ms", "µs"}:
        other = UNITS[present[1]]
        _refuse_where(
            units != present[0], numbers, f"is {{value}}: {other}, not {UNITS[present[0]]} as in row 1"
        )
    frame = pl.DataFrame({"value": numbers, "unit": units})
    scale = {"s": (1000, 1), "ms": (1, 1), "µs": (1, 1000), "ns": (1, 1_000_000)}
    whole, exact = pl.lit(None, pl.Int64), pl.lit(True)
    for unit in present:
        factor, divisor = scale[unit]
        value = pl.col("value")
        rounded = (
            (value * factor).round().cast(pl.Int64)
            if numbers.dtype.is_float()
            else value.cast(pl.Int64) * factor
        )
        # The last unit of a bar is the end of a closing time: validation tells these, and says what to do.
        is_exact = (rounded % divisor == 0) | (rounded % divisor == divisor - 1)
        if numbers.dtype.is_float():
            is_exact &= (value * factor - rounded).abs() < 1e-3
        is_unit = pl.col("unit") == unit
        whole = pl.when(is_unit).then(rounded // divisor).otherwise(whole)
        exact = pl.when(is_unit).then(is_exact).otherwise(exact)
    parsed = frame.select(whole.alias("timestamp"), exact.alias("exact"))
    _refuse_where(~parsed["exact"], numbers, "is finer than a millisecond")
    _refuse_where(
        (parsed["timestamp"] < _FIRST_COIN_MS).fill_null(value=False),
        numbers,
        f"is {{value}}, a time before there were coins, read as {' and '.join(UNITS[unit] for unit in present)}; {_HOW}",
    )
    times = parsed["timestamp"].cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    return times, [f"times read as epoch {' and '.join(UNITS[unit] for unit in present)}"]


def _parse_calendar_days(numbers: pl.Series) -> tuple[pl.Series, list[str]]:
    days = numbers.cast(pl.String).str.to_date("%Y%m%d", strict=False)
    refuse_nulls(days, numbers, "is {value}: this day does not exist")
    return days.cast(pl.Datetime("ms")).dt.replace_time_zone("UTC"), [_DAYS]


def _parse_calendar_clocks(numbers: pl.Series) -> pl.Series | None:
    """Days with a time of day, as 202009201300; None if they are none."""
    for digits, padding in ((10, "0000"), (12, "00"), (14, "")):
        least, most = (bound * 10 ** (digits - 8) for bound in _CALENDAR_DAYS)
        if numbers.is_between(least, most + 10 ** (digits - 8)).all():
            text = numbers.cast(pl.Int64).cast(pl.String) + padding
            times = text.str.to_datetime("%Y%m%d%H%M%S", time_unit="ms", strict=False)
            return None if times.null_count() else times.dt.replace_time_zone("UTC")
    return None


def _tell_units(numbers: pl.Series) -> pl.Series:
    value, unit = pl.col("value"), pl.lit("s")
    for name, first in _FIRST_OF_UNIT.items():
        unit = pl.when(value >= first).then(pl.lit(name)).otherwise(unit)
    return pl.DataFrame({"value": numbers}).select(unit.alias("unit")).to_series()


def _convert_datetimes(column: pl.Series) -> tuple[pl.Series, list[str]]:
    zone = column.dtype.time_zone  # type: ignore[attr-defined]
    if zone is None:
        utc, notes = column.dt.replace_time_zone("UTC"), [_NAIVE]
    else:
        utc = column.dt.convert_time_zone("UTC")
        notes = [] if zone in ("UTC", "Etc/UTC", "+00:00", "GMT") else [f"times converted from {zone} to UTC"]
    whole = utc.dt.cast_time_unit("ms")
    rest = (utc - whole.cast(utc.dtype)).dt.total_nanoseconds()
    # The last unit of a bar is the end of a closing time: validation tells these, and says what to do.
    last_unit = {"us": 999_000, "ns": 999_999}.get(column.dtype.time_unit, 0)  # type: ignore[attr-defined]
    _refuse_where((rest != 0) & (rest != last_unit), column, "is finer than a millisecond")
    return whole, notes


# Text


def _parse_text(text: pl.Series) -> tuple[pl.Series, list[str]]:
    """The first row decides whether the column holds epochs or dates."""
    if _EPOCH.match(text[0]):
        return _parse_epoch_text(text)
    for pattern, form in _USUAL_FORMATS.items():
        if pattern.match(text[0]):
            times = text.str.to_datetime(form, time_unit="ms", strict=False, exact=True)
            if not times.null_count():
                is_naive = "%z" not in form
                note = _NAIVE if is_naive and "Z" not in form else ""
                if not is_naive and not text.str.contains(r"\+00:?00$").all():
                    note = "times converted to UTC by their offset"
                utc = times.dt.replace_time_zone("UTC") if is_naive else times.dt.convert_time_zone("UTC")
                return utc, [note] if note else []
    return _parse_parts(text)


def _parse_epoch_text(text: pl.Series) -> tuple[pl.Series, list[str]]:
    reason = "is {value!r}, not an epoch as in row 1"
    if text.str.contains(_WHOLE).all():
        numbers = text.cast(pl.Int64, strict=False)
    else:
        _refuse_where(~text.str.contains(_EPOCH.pattern), text, reason)
        numbers = text.cast(pl.Float64, strict=False)
        _refuse_rounded(numbers, text)
    refuse_nulls(numbers, text, reason)
    return _parse_epochs(numbers)


def _refuse_rounded(numbers: pl.Series, text: pl.Series) -> None:
    """Raises CandlesRefused where a spreadsheet kept six digits of an epoch: its rows look as if they had one time."""
    is_same = (numbers.diff() == 0).fill_null(value=False) & text.str.contains("[eE]")
    _refuse_where(
        is_same,
        text,
        "is {value}, as in the row before: a program rounded it; format the column as whole numbers, and export again",
    )


def _parse_parts(text: pl.Series) -> tuple[pl.Series, list[str]]:
    parts = text.str.extract_groups(_PARTS).struct.unnest()
    short = pl.col("short").str.replace(r"^([+-])", "${1}0")
    parts = parts.with_columns(pl.coalesce("offset", short).alias("offset"))
    _refuse_unread(
        text, parts.select(pl.all_horizontal(pl.col("year", "first", "named").is_null())).to_series()
    )
    finer = parts["finer"].str.contains("^(0*|9+)$").not_().fill_null(value=False)
    _refuse_where(finer, text, "{value!r} is finer than a millisecond")
    _refuse_second_clock(text, parts)
    parts, notes = _order_day_and_month(parts)
    day: pl.Expr = pl.when(pl.col("named").is_null()).then(
        pl.concat_str("year", pl.lit("-"), "month", pl.lit("-"), "day").str.to_date("%Y-%m-%d", strict=False)
    )
    named = pl.col("named").str.replace_all("[-,]", " ").str.replace_all("  ", " ")
    named = named.str.replace("([A-Za-z]{3})[a-z]+", "$1")
    day = pl.coalesce(day, *(named.str.to_date(form, strict=False) for form in ("%d %b %Y", "%b %d %Y")))
    half = pl.col("half").str.to_uppercase()
    hour = pl.col("hour").cast(pl.Int64).fill_null(0)
    hour_of_24 = (
        pl.when(half.is_null()).then(hour).when(half == "PM").then(hour % 12 + 12).otherwise(hour % 12)
    )
    minute, second = (pl.col(name).cast(pl.Int64).fill_null(0) for name in ("minute", "clock"))
    milliseconds = pl.col("fraction").str.pad_end(3, "0").cast(pl.Int64).fill_null(0)
    is_clock = (hour <= pl.when(half.is_null()).then(23).otherwise(12)) & (minute < 60) & (second < 60)
    local = day.cast(pl.Datetime("ms")) + pl.duration(
        hours=hour_of_24, minutes=minute, seconds=second, milliseconds=milliseconds, time_unit="ms"
    )
    digits = pl.col("offset").str.replace(":", "", literal=True).str.pad_end(5, "0")
    minutes = digits.str.slice(1, 2).cast(pl.Int64) * 60 + digits.str.slice(3, 2).cast(pl.Int64)
    offset = pl.when(digits.str.starts_with("-")).then(-minutes).otherwise(minutes).fill_null(0)
    moment = pl.when(is_clock).then(local - pl.duration(minutes=offset, time_unit="ms"))
    times = parts.select(moment.alias("timestamp")).to_series()
    refuse_nulls(times, text, "is {value!r}: this time does not exist")
    return _convert_zone(times, parts, text, notes)


def _refuse_second_clock(text: pl.Series, parts: pl.DataFrame) -> None:
    """Raises CandlesRefused where some times say their zone and others do not. A day alone says no time."""
    has_zone = parts.select(pl.any_horizontal(pl.col("utc", "offset", "zone").is_not_null())).to_series()
    with_time = parts["hour"].is_not_null()
    if with_time.any():
        first = bool(has_zone[int(with_time.arg_true()[0])])
        says = "no zone" if first else "a zone"
        _refuse_where(
            (has_zone != first) & with_time, text, f"{{value!r}} has {says}, unlike the rows before"
        )


def _convert_zone(
    times: pl.Series, parts: pl.DataFrame, text: pl.Series, notes: list[str]
) -> tuple[pl.Series, list[str]]:
    zones = parts["zone"].unique().to_list()
    if zones == [None]:
        offsets = parts["offset"].drop_nulls()
        if not offsets.str.contains(r"^[+-]00:?(00)?$").all():
            notes = [*notes, "times converted to UTC by their offset"]
        elif not len(offsets) and parts["utc"].null_count():
            notes = [*notes, _NAIVE]
        return times.dt.replace_time_zone("UTC"), notes
    if len(zones) > 1:
        _refuse_where(
            parts["zone"].fill_null("") != (parts["zone"][0] or ""),
            text,
            "{value!r} has another zone than row 1",
        )
    try:
        local = times.dt.replace_time_zone(zones[0], ambiguous="null", non_existent="null")
    except pl.exceptions.PolarsError as error:
        raise CandlesRefused(f"timestamp has the unknown zone {zones[0]!r}; write UTC", row=1) from error
    refuse_nulls(
        local, text, "{value!r} does not name one moment, because the clocks of its zone change; write UTC"
    )
    return local.dt.convert_time_zone("UTC"), [*notes, f"times converted from {zones[0]} to UTC"]


def _order_day_and_month(parts: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Fills year, month and day of dates like 13/01/2024. The whole file tells which number is the day, or nothing does."""
    first, second = (parts[name].cast(pl.Int64) for name in ("first", "second"))
    if first.null_count() == len(first):
        return parts, []
    is_day_first, is_month_first = ((number > 12).any() for number in (first, second))
    if is_day_first == is_month_first:
        row = int(first.is_not_null().arg_true()[0])
        value = "".join(str(parts[name][row]) for name in ("first", "mark", "second", "mark", "last"))
        why = "and other rows contradict each other" if is_day_first else "and no row says which"
        raise CandlesRefused(
            f"timestamp {value} may be day and month or month and day, {why}; write the year first: 2020-09-20",
            row=row + 1,
        )
    day, month = ("first", "second") if is_day_first else ("second", "first")
    filled = parts.with_columns(
        pl.coalesce("year", "last").alias("year"),
        pl.coalesce("month", month).alias("month"),
        pl.coalesce("day", day).alias("day"),
    )
    return filled, [f"dates read as {'day, month, year' if is_day_first else 'month, day, year'}"]


def _refuse_unread(text: pl.Series, unread: pl.Series) -> None:
    if not unread.any():
        return
    row = int(unread.arg_true()[0])
    value = text[row][:40]
    abbreviation = _ABBREVIATION.search(value)
    meanings = "the zone {} has several meanings; write an offset such as -05:00"
    is_ambiguous = abbreviation is not None and abbreviation.group(1) not in ("UTC", "GMT", "AM", "PM")
    why = meanings.format(abbreviation.group(1)) if abbreviation and is_ambiguous else _HOW
    reason = (
        f"timestamp is {value!r}; {why}"
        if row == 0
        else f"timestamp is {value!r}, not a date as in row 1; {why}"
    )
    raise CandlesRefused(reason, row=row + 1)


def _refuse_where(is_wrong: pl.Series, written: pl.Series, reason: str) -> None:
    if is_wrong.any():
        row = int(is_wrong.arg_true()[0])
        value = str(written[row])[:40]
        raise CandlesRefused(f"timestamp {reason.format(value=value)}", row=row + 1)
