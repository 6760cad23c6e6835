"""One trace from the launch to the bot's acknowledgement, over processes, sent to an OpenTelemetry collector."""

import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from accounts.roles import Actor
from common import correlation
from deploy.bots.heartbeat_checks import Heartbeat
from deploy.bots.heartbeats import receive_heartbeat
from deploy.models import Release
from deploy.reconcile import advance_releases
from deploy.releases import decide
from deploy.releases.launch import launch
from deploy.rules import Purpose, Running
from tests import factories, scenarios
from tests.loopback import free_port
from tests.processes import REPOSITORY, StartWorker, environment, wait_until
from tests.scenarios import APPROVER, LAUNCHER

TRADER = Actor("trader", is_bot=True)


class Collector:
    """Takes traces over OTLP/HTTP and keeps their spans."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def tracing(collector: Collector, settings: Any) -> Iterator[Collector]:
    """This process sends its spans there."""
    settings.OTLP_ENDPOINT = collector.url
    correlation._get_provider.cache_clear()
    yield collector
    correlation.flush()
    correlation._get_provider.cache_clear()


def read_attributes(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.usefixtures("committed")
@pytest.mark.long
def test_one_trace_leads_from_the_launch_to_the_acknowledgement(
    tracing: Collector, start_worker: StartWorker
) -> None:
    factories.token(factories.person("trader"), "bot")
    for symbol in scenarios.COINS:
        factories.market(symbol)
    start_worker("training,gates", slots=2, CRPBOT_OTLP_ENDPOINT=tracing.url)
    release = launch("v5", actor=LAUNCHER, purpose=Purpose.INHERITED)

    def is_measured() -> bool:
        advance_releases()
        return not Release.objects.get(pk=release.pk).coins.filter(diagnosis=None).exists()

    wait_until(is_measured, what="the diagnoses", seconds=240)
    move = decide.inherit(Release.objects.get(pk=release.pk), actor=APPROVER, reason="what the bots run")
    receive_heartbeat(Heartbeat("desk-1", "0.1.0", None, None, Running(None, None, {})), actor=TRADER)
    receive_heartbeat(scenarios.heartbeat(move), actor=TRADER)
    correlation.flush()
    wait_until(lambda: len(tracing.named("measurement.attempt")) == 3, what="the spans of the worker")
    (root,) = tracing.named("release.launch")
    assert root.parent_span_id == b""
    counts = {
        "trainingrun.attempt": 3,
        "measurement.attempt": 3,
        "release.inherit": 1,
        "pointer.move": 1,
        "bot.acknowledge": 1,
    }
    for name, count in counts.items():
        spans = tracing.named(name)
        assert (name, len(spans)) == (name, count)
        assert {span.trace_id for span in spans} == {root.trace_id}, name
    judged = tracing.named("diagnosis.judge")
    assert len(judged) >= 3, "whichever process looks first judges, and two may look at once"
    assert {span.trace_id for span in judged} == {root.trace_id}
    (inherit,), (moved,), (acknowledged,) = map(
        tracing.named, ("release.inherit", "pointer.move", "bot.acknowledge")
    )
    assert moved.parent_span_id == inherit.span_id
    assert acknowledged.parent_span_id == moved.span_id
    assert read_attributes(acknowledged) == {"crpbot.bot": "trader (desk-1)", "crpbot.revision": 1}
    run = tracing.named("trainingrun.attempt")[0]
    assert read_attributes(run)["crpbot.release_id"] == release.pk
    assert run.end_time_unix_nano > run.start_time_unix_nano


def test_an_error_is_the_status_of_its_span(tracing: Collector) -> None:
    with pytest.raises(ValueError, match="no"), correlation.span("fails"):
        raise ValueError("no")
    correlation.flush()
    assert tracing.named("fails")[0].status.code == 2


def test_a_collector_that_is_away_delays_nobody(settings: Any) -> None:
    settings.OTLP_ENDPOINT = f"http://127.0.0.1:{free_port()}"
    correlation._get_provider.cache_clear()
    done = threading.Event()

    def work() -> None:
        for _ in range(5_000):  # more than wait for the collector at a time
            with correlation.span("a part"):
                pass
        done.set()

    threading.Thread(target=work, daemon=True).start()
    assert done.wait(30)
    correlation.flush()
    correlation._get_provider.cache_clear()


def test_tracing_that_cannot_be_set_up_refuses_nothing(
    settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.OTLP_ENDPOINT = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    correlation._get_provider.cache_clear()
    reached = []
    with correlation.span("a part"):
        reached.append(correlation.capture())
    correlation.flush()
    correlation._get_provider.cache_clear()
    assert len(reached) == 1
    assert "nothing is traced" in caplog.text


def test_without_the_setting_nothing_is_made_or_imported() -> None:
    code = """
import sys, django
django.setup()
from common import correlation
with correlation.span("a part"), correlation.resume({"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}):
    print(correlation.capture())
correlation.flush()
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "{}\n[]\n"


def test_an_address_that_is_none_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRPBOT_OTLP_ENDPOINT", "collector:4318")
    with pytest.raises(ImproperlyConfigured, match="'collector:4318'; it must be an address, such as"):
        runpy.run_path(str(REPOSITORY / "crpbot" / "settings.py"))
