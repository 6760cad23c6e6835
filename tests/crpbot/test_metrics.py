"""`/metrics`: who may read it, that it answers whatever is away, and that one process answers for all."""

import asyncio
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError

from common import metrics as own
from crpbot.asgi import application, django_application
from crpbot.web import metrics as page
from crpbot.web.metrics import PATH, Metrics
from deploy import metrics
from tests.deploy.asgi_client import Answer, ask
from tests.deploy.serving import web
from tests.promtool import needs_promtool, promtool

TOKEN = "a token that nobody can guess, of 40 letters"
SAMPLE = re.compile(r"^(crpbot_\w+)(\{[^}]*\})? (\S+)$", re.MULTILINE)
UNITS = ("_seconds", "_usd", "_bytes", "_total", "_sum", "_count", "_bucket", "_info", "_created")
COUNTS = {  # gauges that count things, whose name says what
    "crpbot_alarm_raised", "crpbot_bots", "crpbot_database_up", "crpbot_redis_up", "crpbot_flip_acknowledged_bots",
    "crpbot_gate_results", "crpbot_jobs_queued", "crpbot_jobs_running", "crpbot_pointer_converged", "crpbot_pointer_kind",
    "crpbot_pointer_revision", "crpbot_queue_messages", "crpbot_releases", "crpbot_workers_alive",
}  # fmt: skip


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "METRICS_TOKEN", TOKEN)


def scrape(*, token: str | None = TOKEN, method: str = "GET") -> Answer:
    headers: Any = {} if token is None else {"authorization": f"Bearer {token}"}
    app = Metrics(django_application)  # it knows no figures yet
    return async_to_sync(ask)(app, path=PATH, method=method, **headers)


def read(answer: Answer) -> dict[str, float]:
    assert answer.status == 200
    return {
        name + (labels or ""): float(value) for name, labels, value in SAMPLE.findall(answer.body.decode())
    }


@pytest.mark.parametrize("shown", [None, "", TOKEN[:-1], TOKEN + "x", "crp_approver_abc"])
def test_without_the_token_nothing_is_read(shown: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "read_database", lambda: pytest.fail("the database was asked"))
    answer = scrape(token=shown)
    assert (answer.status, "www-authenticate" in answer.headers) == (401, True)
    assert b"crpbot_" not in answer.body
    assert b"CRPBOT_METRICS_TOKEN" in answer.body


def test_without_a_configured_token_nobody_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "METRICS_TOKEN", "")
    for shown in (None, "", TOKEN):
        answer = scrape(token=shown)
        assert (answer.status, b"Set CRPBOT_METRICS_TOKEN" in answer.body) == (403, True)


def test_it_is_only_read() -> None:
    assert scrape(method="POST").status == 405


def test_a_token_that_can_be_guessed_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRPBOT_METRICS_TOKEN", "short")
    with pytest.raises(ImproperlyConfigured, match="CRPBOT_METRICS_TOKEN can be guessed"):
        runpy.run_path(str(settings.BASE_DIR / "crpbot" / "settings.py"))


@pytest.mark.usefixtures("committed", "broker")
def test_prometheus_reads_state_and_own_figures() -> None:
    answer = scrape()
    figures = read(answer)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert (figures["crpbot_database_up"], figures["crpbot_redis_up"]) == (1, 1)
    assert figures['crpbot_queue_messages{queue="training"}'] == 0
    assert figures["crpbot_pointer_revision"] == 0
    assert figures["crpbot_database_query_seconds_count"] > 0


@pytest.mark.usefixtures("committed", "broker")
def test_names_say_their_unit_and_every_metric_its_meaning() -> None:
    text = scrape().body.decode()
    names = set(re.findall(r"^(crpbot_\w+)", text, re.MULTILINE))
    assert {name for name in names - COUNTS if not name.endswith(UNITS)} == set()
    assert re.findall(r"^# HELP (crpbot_\w+) *$", text, re.MULTILINE) == []


@needs_promtool
@pytest.mark.usefixtures("committed", "broker")
def test_promtool_finds_no_fault_in_them() -> None:
    assert promtool("check", "metrics", text=scrape().body.decode()) == ""


def test_without_the_database_it_answers_that_it_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OperationalError("the database is away")

    monkeypatch.setattr(metrics, "read_database", fail)
    figures = read(scrape())
    assert figures["crpbot_database_up"] == 0
    assert "crpbot_pointer_revision" not in figures
    assert "crpbot_flip_seconds_count" in figures


@pytest.mark.usefixtures("committed")
def test_without_redis_it_answers_that_it_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "REDIS_URL", "unix:///nowhere/redis.sock")
    figures = read(scrape())
    assert (figures["crpbot_redis_up"], figures["crpbot_database_up"]) == (0, 1)
    assert figures['crpbot_redis_errors_total{call="scrape"}'] >= 1


async def test_a_slow_database_is_read_once_for_all_and_waited_for_shortly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    release = asyncio.Event()

    async def inner(*args: Any) -> None:
        raise AssertionError

    app = Metrics(inner)

    async def hang(query: Any, argument: Any) -> Any:
        if query is app._own._query:
            return "its own figures\n"
        asked.append(query)
        return await release.wait()

    monkeypatch.setattr("deploy.edge.freshness.query_database", hang)
    monkeypatch.setattr(page, "ANSWER_SECONDS", 0.1)
    answers = await asyncio.gather(*[ask(app, path=PATH, authorization=f"Bearer {TOKEN}") for _ in range(20)])
    release.set()
    assert {answer.status for answer in answers} == {200}
    assert all(b"crpbot_database_up 0" in answer.body for answer in answers)
    assert len(asked) == 2, "one for the database, one for Redis"


@pytest.mark.usefixtures("committed")
def test_requests_are_counted_by_operation_and_status() -> None:
    def count(part: str, status: int) -> float:
        return own.REQUESTS.labels(part, str(status))._value.get()

    before = count("active", 401), count("api", 401), count("page", 404)
    for path in ("/api/v1/active/", "/api/v1/releases/", "/nowhere/"):
        async_to_sync(ask)(application, path=path, authorization="Bearer unknown")
    assert (count("active", 401), count("api", 401)) == (before[0] + 1, before[1] + 1)
    assert sum(own.REQUESTS.labels("page", status)._value.get() for status in ("302", "404")) > 0


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.usefixtures("committed", "broker")
@pytest.mark.long
def test_any_web_process_answers_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for one that has ended: a counter never goes back while others remember it."""
    monkeypatch.setenv("CRPBOT_METRICS_TOKEN", TOKEN)
    monkeypatch.setenv("CRPBOT_METRICS_DIR", str(tmp_path / "metrics"))
    name = 'crpbot_http_requests_total{part="keys",status="401"}'

    def ask_for_keys(url: str) -> None:
        wrong = {"Authorization": "Bearer wrong"}
        assert httpx.get(f"{url}/api/v1/active/keys/", headers=wrong).status_code == 401

    def read_count(url: str) -> float:
        text = httpx.get(f"{url}{PATH}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30).text
        return {found[0] + found[1]: float(found[2]) for found in SAMPLE.findall(text)}.get(name, 0.0)

    with web(tmp_path / "first.log", settings.REDIS_URL) as first:
        with web(tmp_path / "second.log", settings.REDIS_URL) as second:
            for url in (first.url, first.url, second.url):
                ask_for_keys(url)
            assert read_count(first.url) == read_count(second.url) == 3
        assert read_count(first.url) == 3
    with web(tmp_path / "later.log", settings.REDIS_URL) as later:
        assert read_count(later.url) == 0, "the first after all others begins again"


def test_a_restarted_container_continues_its_counters(tmp_path: Path) -> None:
    """It has the same host name and process id, and Prometheus would take counters that go back for new requests."""
    others = own._share_files(tmp_path)
    (file,) = tmp_path.glob("counter_*.db")
    file.write_bytes(b"counted" + bytes(own.FILE_BYTES - 7))
    again = own._share_files(tmp_path)
    assert file.read_bytes()[:7] == b"counted"
    assert file.stat().st_size == own.FILE_BYTES
    for lock in (others, again):
        assert lock is not None
        os.close(lock)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_keeps_nobody_from_starting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code = "import crpbot.asgi; from common import metrics; print(metrics.build_registry() is metrics.OWN)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CRPBOT_METRICS_DIR": str(tmp_path / "file" / "metrics")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True"
    assert "keeps its metrics to itself" in done.stderr
