"""What the name of a column says: which figure it is, at which end of the bar its time lies, and in which zone."""

import re
from collections.abc import Sequence

from mlcore.errors import CandlesRefused

TIMES = (
    "opentime", "timeperiodstart", "timeopen", "starttime", "start", "unix", "unixtimestamp", "unixtime", "epoch",
    "candledatetimeutc", "timestamp", "timestamps", "ts", "mts", "time", "datetime", "datetimeutc", "date",
    "dateutc", "timeutc", "utctime", "utc", "gmttime", "dt", "candletime", "bartime",
    "bardate", "t", "indexlevel0",
)  # fmt: skip
"""The first of these that a table has is its time. An opening time of another name comes before all of them."""
EPOCHS = ("id", "ticks")
"""What HTX and Deribit call their times. Elsewhere these are counters."""
INDEXES = ("", "index", "unnamed0", "level0")
"""A counter of rows, or the time where nothing else is."""
_BAR = r"(?:k?line|candle|bar|window|bucket|interval|period|timeperiod|time|date|datetime|timestamp)"
_MOMENT = r"(?:time|timestamp|datetime|date|at|ts)"
_OPENS, _CLOSES = r"(?:open(?:ed|ing)?|start(?:ed|ing)?|begins?)", r"(?:close[ds]?|closing|end(?:ed|ing|s)?)"
_OPENING = re.compile(rf"^(?:{_BAR}{_OPENS}{_MOMENT}?|{_OPENS}{_MOMENT}|start|begin|from)$")
_CLOSING = re.compile(rf"^(?:{_BAR}{_CLOSES}{_MOMENT}?|{_CLOSES}{_MOMENT}|end|to)$")
_EPOCH_UNIT = re.compile(
    r"(?<=[a-z])(?:ms|us|ns|millis|milliseconds|microseconds|nanoseconds|seconds|sec|utc|gmt)$"
)
PRICES = {
    "open": ("open", "o", "priceopen", "openprice", "openingprice", "1open"),
    "high": ("high", "h", "pricehigh", "highprice", "2high"),
    "low": ("low", "l", "pricelow", "lowprice", "3low"),
    "close": ("close", "c", "priceclose", "closeprice", "4close", "closelast", "tradeprice"),
}
ALL_PRICES = frozenset(synonym for group in PRICES.values() for synonym in group)
_UNIT = re.compile(r"[ _]*[(\[][^()\[\]]*[)\]]\s*$")
VOLUMES = (
    "volume", "v", "vol", "basevolume", "volumebase", "baseassetvolume", "basetokenvolume", "volumetraded", "volumefrom",
    "5volume", "candleacctradevolume",
)  # fmt: skip
_VOLUME_OF = re.compile(r"^vol(?:ume)?[ _(]+([a-z0-9]{2,12})\)?$", re.IGNORECASE)
_NO_COIN = re.compile(
    r"^(?:[esw]?ma|vwma|avg|average|mean|median|std|stdev|sum|total|cum|delta|diff|change|chg|ratio|pct|percent|rank|zscore"
    r"|osc|oscillator|thousands?|millions?|mio|mln|units?|rsi|imbalance|profile|trend|spike|buy|sell|bid|ask|taker|maker|up|down|long|short|contracts?|lots?"
    r"|notional|weighted|token|day|hour)?\d*[hdmw]?$",
    re.IGNORECASE,
)  # fmt: skip
"""What else stands after `volume`: an indicator, or a share of it."""
_SIDE = re.compile(r"taker|buy|sell|bid|ask|count|trades|price|market")
_AMOUNT = re.compile(r"vol|amount|quantity|qty|notional|turnover|base|quote|money|size|value|^sum$")
COINS = (
    "symbol", "pair", "ticker", "market", "instrument", "instrumentname", "instid", "productid", "currencypair",
    "tradingpair", "coin", "asset", "tic", "base", "basecurrency", "currency", "code", "name",
)  # fmt: skip
QUOTES = frozenset(
    ("usd", "usdt", "usdc", "busd", "tusd", "fdusd", "dai", "usde", "eur", "gbp", "jpy", "krw", "try", "aud", "brl", "cad",
     "chf", "currency", "quote")
)  # fmt: skip
_ZONE_COLUMNS = re.compile(r"^(?:exchange)?(?:time|utc|gmt|tz)?(?:zone|tz|offset)(?:name)?$|^tz$")
_UTC = re.compile(
    r"^(?:(?:etc/)?(?:utc|gmt|universal|zulu)|z|(?:utc|gmt)?[+-]?0{1,2}(?::?00)?)$", re.IGNORECASE
)
_ZONE = re.compile(
    r"(?:^|[^a-z])((?:utc|gmt) ?[+-] ?(?!0{1,2}(?::?00)?(?:[^\d:]|$))\d{1,2}(?::?\d\d)?|[+-]\d\d:?\d\d"
    r"|(?:africa|america|asia|atlantic|australia|europe|pacific|us|canada)/[a-z_]+(?:/[a-z_]+)?|e[sd]?t|c[sd]t|m[sd]t|p[sd]t|cest|cet|eest|eet|wet|msk|bst|ist|jst|kst|hkt|sgt|aest|aedt"
    r"|local|eastern|central|pacific|london|berlin|paris|moscow|beijing|shanghai|tokyo|seoul|singapore|kolkata|new york)"
    r"(?:$|[^a-z])",
    re.IGNORECASE,
)  # fmt: skip


def simplify_name(name: str) -> str:
    """`Open Time`, `open_time` and `openTime` are one name. The unit of a price says nothing: `Open (USDT)` is `open`."""
    bare, whole = _keep_letters(_UNIT.sub("", name)), _keep_letters(name)
    if bare in ALL_PRICES:
        return bare
    if whole in TIMES or whole in VOLUMES:
        return whole
    return next(
        (time for time in (bare, _EPOCH_UNIT.sub("", whole)) if time in TIMES or is_opening(time)), whole
    )


def _keep_letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def is_opening(name: str) -> bool:
    """Whether this simplified name is of the time at which a bar opens."""
    return name not in ALL_PRICES and bool(_OPENING.match(name))


def is_closing(name: str) -> bool:
    """Whether this simplified name is of the time at which a bar closes."""
    name = _EPOCH_UNIT.sub("", name)
    return name not in ALL_PRICES and bool(_CLOSING.match(name))


def count_prices(names: Sequence[str]) -> int:
    """How many of open, high, low and close are among the names. A header has all of them."""
    known = {simplify_name(name) for name in names}
    return sum(not known.isdisjoint(synonyms) for synonyms in PRICES.values())


def has_time(names: Sequence[str]) -> bool:
    known = {simplify_name(name) for name in names}
    return not known.isdisjoint(TIMES) or any(map(is_opening, known))


def find_asset(name: str) -> str:
    """The coin or currency that a volume counts, as in `Volume BTC`, in small letters; empty if the name has none."""
    match = _VOLUME_OF.match(name.strip())
    return match[1].lower() if match and not _NO_COIN.match(match[1]) else ""


def is_volume(name: str, simplified: str) -> bool:
    """Whether the name is of the volume of the coin. `Vol %` and `Volume $` are simplified alike, and are not."""
    return simplified in VOLUMES and not re.search("[%$€£]", name)


def is_amount(simplified: str) -> bool:
    """Whether it may count what was traded in the bar, in coins or in money, by both sides."""
    return bool(_AMOUNT.search(simplified)) and not _SIDE.search(simplified)


def find_zone(name: str) -> str:
    """The zone that the name of a column of times has in it, such as `EST` in `Date (EST)`; empty if none or UTC."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name)
    match = _ZONE.search(name if "/" in name else spaced)
    return match[1] if match else ""


def is_zone_column(simplified: str) -> bool:
    return bool(_ZONE_COLUMNS.match(simplified))


def is_utc(zone: str) -> bool:
    return not zone or bool(_UTC.match(zone))


def find_one(known: Sequence[str], names: Sequence[str], synonyms: Sequence[str]) -> int | None:
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
