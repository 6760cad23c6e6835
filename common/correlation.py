"""What belongs together: the ids of request, release and job on log lines, and the spans of one trace.

An *origin* is what a row keeps of the work that made it: it continues in another process, hours later, after lost messages.
Spans are made only with OTLP_ENDPOINT; without it OpenTelemetry is not even imported.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.conf import settings
from structlog.contextvars import bound_contextvars, get_contextvars

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

EXPORT_SECONDS = 2.0
_KEPT = ("request_id", "release_id")

logger = logging.getLogger(__name__)


def capture() -> dict[str, Any]:
    """The origin of a row that is made now."""
    bound = get_contextvars()
    origin = {name: bound[name] for name in _KEPT if name in bound}
    if settings.OTLP_ENDPOINT:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(origin)
    return origin


@contextmanager
def resume(origin: Mapping[str, Any], **ids: object) -> Iterator[None]:
    """Continue the work of this origin, with further ids on the log lines.

    Spans join the trace of the origin, unless one is open already: they are part of that.
    """
    known = {name: origin[name] for name in _KEPT if name in origin}
    with bound_contextvars(**known | ids), _attached(origin):
        yield


@contextmanager
def _attached(origin: Mapping[str, Any]) -> Iterator[None]:
    if not settings.OTLP_ENDPOINT or "traceparent" not in origin:
        yield
        return
    from opentelemetry import context, trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if trace.get_current_span().get_span_context().is_valid:
        yield
        return
    token = context.attach(TraceContextTextMapPropagator().extract(dict(origin)))
    try:
        yield
    finally:
        context.detach(token)


@contextmanager
def span(name: str, **attributes: object) -> Iterator[None]:
    """A part of the trace, with these attributes and the ids that are bound. An error that leaves it is its status."""
    if not settings.OTLP_ENDPOINT:
        yield
        return
    tracer = _get_tracer()
    if tracer is None:
        yield
        return
    described = _to_attributes(get_contextvars() | attributes)
    with (
        tracer.start_as_current_span(name, attributes=described) as opened,
        bound_contextvars(trace_id=f"{opened.get_span_context().trace_id:032x}"),
    ):
        yield


def record_span(
    name: str, origin: Mapping[str, Any], *, began_at: datetime, ended_at: datetime, **attributes: object
) -> None:
    """A span that is known only at its end."""
    tracer = _get_tracer() if settings.OTLP_ENDPOINT else None
    if tracer is None:
        return
    with _attached(origin):
        began = int(began_at.timestamp() * 1e9)
        tracer.start_span(name, attributes=_to_attributes(attributes), start_time=began).end(
            int(ended_at.timestamp() * 1e9)
        )


def flush() -> None:
    """Send what waits, before a process ends without running its exit handlers."""
    if settings.OTLP_ENDPOINT and (provider := _get_provider(os.getpid())) is not None:
        provider.shutdown()


def prepare() -> None:
    """Load what traces need, at the start of a process: the first pin must not wait for it."""
    if settings.OTLP_ENDPOINT:
        _get_tracer()


def _get_tracer() -> "Tracer | None":
    provider = _get_provider(os.getpid())
    return None if provider is None else provider.get_tracer("crpbot")


@lru_cache(maxsize=1)
def _get_provider(pid: int) -> "TracerProvider | None":
    """One for each process: the thread that sends does not survive a fork. None where it cannot be set up."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({"service.name": "crpbot-gate", "service.version": settings.CODE_VERSION})
        provider = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(f"{settings.OTLP_ENDPOINT.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=5_000))
    except Exception:
        logger.exception("nothing is traced: check CRPBOT_OTLP_ENDPOINT and the variables OTEL_*")
        return None
    return provider


def _to_attributes(values: Mapping[str, object]) -> dict[str, Any]:
    return {
        f"crpbot.{name}": value if isinstance(value, int | float) else str(value)
        for name, value in values.items()
    }
