"""Candles from an exchange, through ccxt, in pages.

Exchanges differ and fail. An empty or short page is not the end of the data, pages come again after a pause when the
network or the exchange stumbles, and what was fetched is kept, so that the same call continues after an interruption.
"""

import fcntl
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from common.errors import Conflict, InvalidInput, Unavailable
from mlcore.data.columns import COLUMNS, MAX_ROWS
from mlcore.data.validation import infer_interval_ms, validate_candles
from mlcore.errors import CandlesRefused

PAGE_ROWS = 1000
SMALLEST_PAGE_ROWS = 100
"""Skipped after an empty page where ccxt does not say how long a page of this exchange is."""
MAX_TRIES = 4
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0
REPORT_EVERY_SECONDS = 1.0
MAX_GAPS_REPORTED = 10
REFUSED_STATUSES = {403: "this address", 451: "this region"}
"""HTTP statuses that a second try does not change, and what the exchange refuses."""

CALENDAR_UNITS = ("M", "y")
"""The end of an interval of months and years in ccxt; `1m` is a minute."""

Row = list[float]
Report = Callable[[str], None]
"""Receives sentences about the progress, and about gaps at the end."""


def fetch(
    pair: str,
    *,
    exchange: str,
    interval: str,
    since: datetime,
    folder: Path | None,
    report: Report = lambda sentence: None,
) -> pl.DataFrame:
    """Fetch all complete candles of `pair` from `since` on, and check their form.

    Pages are kept in `folder`, if there is one, until the last has arrived; the same call continues after them. Raises
    InvalidInput for an unknown exchange, pair or interval, or where the exchange refuses; Unavailable when it does not
    answer; Conflict when the same candles are being fetched.
    """
    import ccxt  # a slow import that only this function needs

    if exchange not in ccxt.exchanges:
        raise InvalidInput(f"There is no exchange {exchange!r} in ccxt.", field="exchange")
    client = _create_client(ccxt, exchange)
    advice = "Try again later: what was fetched is kept." if folder else "Try again later."
    ask = partial(_call_with_retries, ccxt, client, advice)
    ask(client.load_markets)
    if pair not in client.markets:
        raise InvalidInput(f"{exchange} does not trade {pair}.", field="coin")
    if interval not in (client.timeframes or {}):
        raise InvalidInput(f"{exchange} has no {interval} candles.", field="interval")
    if interval[-1] in CALENDAR_UNITS:
        raise InvalidInput(
            f"{interval} candles are of months or years, which differ in length: fetch bars of a week or less.",
            field="interval",
        )
    step, start = int(client.parse_timeframe(interval) * 1000), int(since.timestamp() * 1000)
    now = int(client.milliseconds())
    if client.has.get("fetchTime"):  # of two clocks the slower one: a bar that still forms must not be taken
        now = min(now, int(ask(client.fetch_time)))
    if start >= now:
        raise InvalidInput("since is not in the past.", field="since")
    if (now - start) // step > MAX_ROWS:
        raise InvalidInput(f"That is more than {MAX_ROWS:,} candles: choose a later since.", field="since")
    page_rows = _get_page_rows(client)
    name = f"{exchange}-{pair.replace('/', '-')}-{interval}-{start}.jsonl"
    with _open_pages(folder, name) as pages:
        rows, begin = pages.read(start)
        if rows:
            report(f"Continuing after {len(rows):,} candles that were fetched before.")
        reported_at, forming = time.monotonic(), list[int]()
        while begin + step <= now:
            get_page = partial(client.fetch_ohlcv, pair, interval, since=begin, limit=page_rows)
            fresh, forming = _read_page(exchange, ask(get_page), begin, now - step)
            if not fresh:  # once more: an empty page may be a mistake
                fresh, forming = _read_page(exchange, ask(get_page), begin, now - step)
            begin = int(fresh[-1][0]) + step if fresh else begin + page_rows * step
            rows += fresh
            pages.append(fresh, begin)
            if time.monotonic() - reported_at >= REPORT_EVERY_SECONDS:
                reported_at = time.monotonic()
                share = min(1.0, (begin - start) / (now - start))
                report(f"{len(rows):,} candles, up to {_format_time(begin - step)} ({share:.0%})")
        pages.remove()  # before the rows are checked: wrong ones must be fetched again, not found here for ever
    frame = _build_frame(rows, f"{exchange} {pair}", interval, step)
    for sentence in _describe_gaps(rows, start, now, step):
        report(sentence)
    if forming:
        left_out = "the last candle" if len(forming) == 1 else f"the last {len(forming)} candles"
        report(f"Left out {left_out}, from {_format_time(forming[0])} on: not closed yet.")
    return frame


def _create_client(ccxt: Any, exchange: str) -> Any:
    client = getattr(ccxt, exchange)({"enableRateLimit": True})
    markets = client.options.get("fetchMarkets")
    if isinstance(markets, dict) and "types" in markets:  # else the exchange is asked for its derivatives too
        client.options["fetchMarkets"] = {**markets, "types": ["spot"]}
    on_response = client.on_rest_response

    def refuse_or_pass_on(code: int, *response: Any) -> Any:
        if refused := REFUSED_STATUSES.get(code):
            raise InvalidInput(
                f"{exchange} refuses {refused} (HTTP {code}). Fetch from a machine elsewhere, choose another exchange,"
                " or import a file.",
                field="exchange",
            )
        return on_response(code, *response)

    client.on_rest_response = refuse_or_pass_on
    return client


def _get_page_rows(client: Any) -> int:
    """How many candles one page has at most, as far as ccxt knows."""
    described = ((client.features or {}).get("spot") or {}).get("fetchOHLCV") or {}
    return min(PAGE_ROWS, int(described.get("limit") or SMALLEST_PAGE_ROWS))


def _call_with_retries(ccxt: Any, client: Any, advice: str, ask: Callable[[], Any]) -> Any:
    """Call the exchange, and retry after a pause when the network or the exchange fails; then `advice` ends the error."""
    for attempt in range(MAX_TRIES):
        try:
            return ask()
        except ccxt.NetworkError as error:
            if attempt == MAX_TRIES - 1:
                raise Unavailable(
                    f"{client.id} does not answer ({type(error).__name__}: {str(error)[:200]}). {advice}"
                ) from error
            time.sleep(max(FIRST_PAUSE_SECONDS * 2**attempt, _get_retry_after(client)))
        except ccxt.BaseError as error:
            raise InvalidInput(f"{client.id} refuses: {str(error)[:300]}") from error
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise Unavailable(
                f"{client.id} answered with something other than candles ({type(error).__name__} in ccxt). {advice}"
            ) from error
    raise AssertionError("every try returns or raises")


def _get_retry_after(client: Any) -> float:
    """The pause that the exchange asks for, in seconds."""
    text = str((client.last_response_headers or {}).get("Retry-After", ""))
    if re.fullmatch(r"\d{1,6}", text):
        return min(float(text), LONGEST_PAUSE_SECONDS)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    pause = (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(pause, 0.0), LONGEST_PAUSE_SECONDS)


def _read_page(exchange: str, page: Any, begin: int, last: int) -> tuple[list[Row], list[int]]:
    """The rows between two opening times, sorted, each time once; and the later times, of bars that have not closed.

    Other pages may have held the rows before.
    """
    by_time, forming = dict[int, Row](), set[int]()
    for row in page:
        if not isinstance(row, list) or len(row) < len(COLUMNS) or not isinstance(row[0], int | float):
            raise Unavailable(f"{exchange} answered with a row that is not a candle: {str(row)[:80]}.")
        opened, candle = int(row[0]), row[: len(COLUMNS)]
        if begin <= opened <= last and by_time.setdefault(opened, candle) != candle:
            raise Unavailable(
                f"{exchange} answered with two different candles for {_format_time(opened)}. Try again later."
            )
        if opened > last:
            forming.add(opened)
    return [by_time[opened] for opened in sorted(by_time)], sorted(forming)


class _Pages:
    """The pages of one fetch on disk, one JSON document per line: its rows, and where the next page begins."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path

    def read(self, start: int) -> tuple[list[Row], int]:
        """All rows, and where to continue. A line that was cut off is dropped, with everything after it."""
        rows, begin, end = list[Row](), start, 0
        self._file.seek(0)
        for line in self._file:
            try:
                page = json.loads(line)
                following, fresh = int(page["next"]), list(page["rows"])
            except (ValueError, TypeError, LookupError):
                break
            if not line.endswith(b"\n"):
                break
            begin, end = following, end + len(line)
            rows += fresh
        self._file.truncate(end)
        self._file.seek(end)
        return rows, begin

    def append(self, rows: Sequence[Row], begin: int) -> None:
        self._file.write(json.dumps({"next": begin, "rows": rows}).encode() + b"\n")
        self._file.flush()

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


@contextmanager
def _open_pages(folder: Path | None, name: str) -> Iterator[_Pages]:
    """Open and lock the pages of one fetch. Raises Conflict while another process fetches the same, Unavailable."""
    if folder is None:
        with tempfile.TemporaryDirectory() as own, _open_pages(Path(own), name) as pages:
            yield pages
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (folder / name).open("a+b")
    except OSError as error:
        raise Unavailable(f"What is fetched cannot be kept in {folder}: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict("The same candles are being fetched by another process.") from None
        yield _Pages(file, folder / name)


def _describe_gaps(rows: Sequence[Row], start: int, now: int, step: int) -> Iterator[str]:
    """What the exchange did not have: the time before the first and after the last candle, and the longest gaps."""
    times = [int(row[0]) for row in rows]
    if times[0] >= start + step:
        yield (
            f"The first candle is of {_format_time(times[0])}: the exchange has none between {_format_time(start)} and then."
            " The coin was listed later, or the exchange keeps only the newest candles."
        )
    gaps = [(b - a, a, b) for a, b in pairwise(times) if b - a > step]
    longest = sorted(sorted(gaps, reverse=True)[:MAX_GAPS_REPORTED], key=lambda gap: gap[1])
    for length, before, after in longest:
        yield f"Gap: {length // step - 1:,} candles are missing between {_format_time(before)} and {_format_time(after)}."
    if len(gaps) > len(longest):
        yield f"And {len(gaps) - len(longest):,} shorter gaps."
    if (missing := (now - times[-1]) // step - 1) > 0:
        yield (
            f"The last candle is of {_format_time(times[-1])}: {missing:,} that have closed since are missing. The market is"
            " halted or delisted, or the exchange repeats an old page."
        )


def _format_time(milliseconds: int) -> str:
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds):%Y-%m-%d %H:%M} UTC"


def _build_frame(rows: list[list[float]], source: str, interval: str, step: int) -> pl.DataFrame:
    if not rows:
        raise InvalidInput(f"{source}: the exchange has no complete candle since then.", field="since")
    columns: dict[str, Any] = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    times = pl.Series("timestamp", [int(t) for t in columns.pop("timestamp")], dtype=pl.Int64)
    stamps = times.cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    numbers = {name: pl.Series(name, values, dtype=pl.Float64) for name, values in columns.items()}
    try:
        frame = validate_candles(pl.DataFrame({"timestamp": stamps, **numbers}), source)
    except CandlesRefused as refused:
        raise InvalidInput(str(refused)) from refused
    if (found := infer_interval_ms(frame)) != step:
        raise InvalidInput(
            f"{source}: most candles are {found // 1000:,} s apart, and those of {interval} are {step // 1000:,} s. The"
            " exchange answers with another interval, or the pair trades too seldom: choose a longer one.",
            field="interval",
        )
    return frame


def parse_since(text: str) -> datetime:
    """Parse a date or time, in UTC unless it names a zone. Raises InvalidInput."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"since: {text!r} is not a date such as 2020-09-20.", field="since") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
