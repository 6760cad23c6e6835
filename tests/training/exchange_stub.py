"""A stub of Binance's spot API over HTTP, for the real ccxt, and ways in which exchanges misbehave."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

HOUR = 3_600_000
START_MS = 1_704_067_200_000
"""2024-01-01 00:00 UTC."""

Answer = tuple[int, bytes, dict[str, str]]


def kline(hour: int, step_ms: int = HOUR, start_ms: int = START_MS) -> list[Any]:
    """The bar of this number, where the bars are hours unless they are said to be longer."""
    opened = start_ms + hour * step_ms
    price = f"{100 + hour / 100:.2f}"
    return [
        opened,
        price,
        f"{200 + hour:.2f}",
        "50.00",
        price,
        "5.0",
        opened + step_ms - 1,
        "0",
        1,
        "0",
        "0",
        "0",
    ]


@dataclass
class ExchangeStub:
    """Hourly candles of BTC/USDT from hour `first` to hour `bars`, of which the last still forms."""

    bars: int = 2500
    first: int = 0
    step_ms: int = HOUR
    start_ms: int = START_MS
    halts: list[range] = field(default_factory=list)
    """Hours without candles."""
    is_windowed: bool = False
    """Whether a page covers a stretch of time, and so is empty inside a halt; else it has the next candles."""
    clock_hours_behind: float = 0.0
    before: Callable[[int, int], Answer | None] = lambda number, since: None
    """Called with the number of the klines request and its start; an answer replaces the page."""
    edit: Callable[[list[Any]], list[Any]] = lambda page: page
    requests: list[int] = field(default_factory=list)
    """The start of each klines request, as an hour."""

    @property
    def now_ms(self) -> int:
        return self.start_ms + (self.bars - 1) * self.step_ms + self.step_ms // 2

    def answer(self, path: str, query: dict[str, list[str]]) -> Answer:
        if path.endswith("/exchangeInfo"):
            return 200, json.dumps({"symbols": [SYMBOL]}).encode(), {}
        if path.endswith("/time"):
            return (
                200,
                json.dumps({"serverTime": int(self.now_ms - self.clock_hours_behind * HOUR)}).encode(),
                {},
            )
        since, limit = int(query["startTime"][0]), int(query["limit"][0])
        first = max(0, -(-(since - self.start_ms) // self.step_ms))
        self.requests.append(first)
        if replaced := self.before(len(self.requests), first):
            return replaced
        hours = [
            hour
            for hour in range(max(first, self.first), self.bars)
            if not any(hour in h for h in self.halts)
        ]
        if self.is_windowed:
            hours = [hour for hour in hours if hour < first + limit]
        return (
            200,
            json.dumps(
                self.edit([kline(hour, self.step_ms, self.start_ms) for hour in hours[:limit]])
            ).encode(),
            {},
        )


SYMBOL = {
    "symbol": "BTCUSDT",
    "status": "TRADING",
    "baseAsset": "BTC",
    "quoteAsset": "USDT",
    "baseAssetPrecision": 8,
    "quotePrecision": 8,
    "isSpotTradingAllowed": True,
    "orderTypes": ["LIMIT"],
    "permissions": ["SPOT"],
    "permissionSets": [["SPOT"]],
    "filters": [],
}


def serve(stub: ExchangeStub) -> ThreadingHTTPServer:
    """Serve it on a free port of this machine, in a thread; the caller shuts it down."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            status, body, headers = stub.answer(parts.path, parse_qs(parts.query))
            self.send_response(status)
            usual = {"Content-Type": "application/json", "Content-Length": str(len(body))}
            for name, value in {**usual, **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server
