"""`GET /metrics` for Prometheus, in front of Django, and what is counted of every request.

A scrape shows METRICS_TOKEN. It waits at most ANSWER_SECONDS for database and Redis, and answers without their figures where
they do not: `crpbot_database_up` and `crpbot_redis_up` say which. However many scrapes wait, one thread with one connection
reads for all of them, so none takes what a pin needs.
"""

import asyncio
import hmac
import time
from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseError
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from redis.exceptions import RedisError

from common import metrics as own
from crpbot.web.limits import App, Receive, Scope, Send
from deploy import metrics
from deploy.edge import application as edge
from deploy.edge.freshness import CachedValue

PATH = "/metrics"
ANSWER_SECONDS = 1.5
EDGE_PARTS = {
    edge.ACTIVE_PATH: "active",
    edge.KEYS_PATH: "keys",
    edge.SIGNED_PATH: "signed",
    edge.STREAM_PATH: "stream",
    edge.HEARTBEAT_PATH: "heartbeat",
    edge.WINDOW_PATH: "window",
}
NO_TOKEN = "Metrics are off here. Set CRPBOT_METRICS_TOKEN, and give it to Prometheus as its bearer token.\n"
WRONG_TOKEN = "This needs the token of CRPBOT_METRICS_TOKEN: Authorization: Bearer …\n"


class Metrics:
    """An ASGI application that answers `/metrics`, and counts and times what `inner` answers."""

    def __init__(self, inner: App) -> None:
        self.inner = inner
        self._database: CachedValue[list[Metric]] = CachedValue(lambda _: metrics.read_database())
        self._redis: CachedValue[list[Metric]] = CachedValue(lambda _: metrics.read_redis())
        self._own: CachedValue[str] = CachedValue(lambda _: _format(own.build_registry()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
        elif scope["path"] == PATH:
            await self._answer(scope, send)
        else:
            await _observe(self.inner, scope, receive, send)

    async def _answer(self, scope: Scope, send: Send) -> None:
        if refusal := _find_refusal(scope):
            await _send_text(send, *refusal)
            return
        database, redis = await asyncio.gather(_read(self._database), _read(self._redis))
        state = [*(database or ()), *(redis or ())]
        for name, figures in (("crpbot_database_up", database), ("crpbot_redis_up", redis)):
            up = GaugeMetricFamily(name, "1 where its figures are in this answer; 0 where it did not answer.")
            up.add_metric([], float(figures is not None))
            state.append(up)
        version = GaugeMetricFamily("crpbot_build_info", "The running version.", labels=["version"])
        version.add_metric([settings.CODE_VERSION], 1)
        registry = CollectorRegistry()
        registry.register(_State([*state, version]))
        await _send_text(send, 200, await self._own.get() + _format(registry), CONTENT_TYPE_LATEST)


def _find_refusal(scope: Scope) -> tuple[int, str] | None:
    """The status and text for one who may not read the metrics; None for Prometheus."""
    if scope["method"] not in ("GET", "HEAD"):
        return 405, "Metrics are read by GET.\n"
    if not settings.METRICS_TOKEN:
        return 403, NO_TOKEN
    scheme, _, token = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
    is_right = hmac.compare_digest(token.strip(), settings.METRICS_TOKEN.encode())
    return None if scheme.lower() == b"bearer" and is_right else (401, WRONG_TOKEN)


async def _read(value: CachedValue[list[Metric]]) -> list[Metric] | None:
    """Fresh figures; None where they did not come in time."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await value.get()
    except (DatabaseError, RedisError, OSError):  # a TimeoutError is an OSError
        return None


class _State:
    """A collector of figures that were read before."""

    def __init__(self, state: Iterable[Metric]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        yield from self._state


def _format(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


async def _observe(inner: App, scope: Scope, receive: Receive, send: Send) -> None:
    part = EDGE_PARTS.get(scope["path"]) or ("api" if scope["path"].startswith("/api/") else "page")
    began_at = time.perf_counter()

    async def send_and_count(message: Any) -> None:
        await send(message)
        if message["type"] == "http.response.start":
            own.REQUESTS.labels(part, str(message["status"])).inc()
        elif part != "stream" and not message.get("more_body"):
            own.REQUEST_SECONDS.labels(part).observe(time.perf_counter() - began_at)

    await inner(scope, receive, send_and_count)


async def _send_text(
    send: Send, status: int, text: str, content_type: str = "text/plain; charset=utf-8"
) -> None:
    body = text.encode()
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="crpbot metrics"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
