"""Log lines: JSON for a log store with the ids of request, release and run, or text for a person."""

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from asgiref.sync import async_to_sync
from django.conf import settings
from structlog.contextvars import bound_contextvars, get_contextvars

from common import correlation
from crpbot.logs import build_logging
from crpbot.request_ids import RequestIds
from deploy.edge.freshness import start_shared
from tests import factories
from tests.deploy.asgi_client import ask
from tests.deploy.serving import web
from tests.processes import StartWorker, environment, wait_until
from training.models import TrainingRun
from training.rules import JobState

JSON = {"CRPBOT_LOG_FORMAT": "json", "CRPBOT_LOG_LEVEL": "INFO"}


def parse(lines: str) -> list[dict[str, Any]]:
    """Every line as its object; a line that is none fails the test."""
    return [json.loads(line) for line in lines.splitlines() if line.strip()]


def format_line(form: str, log: Any) -> str:
    """What a process with this format writes while `log` runs."""
    configuration = build_logging(form, "INFO")
    described = dict(configuration["formatters"]["line"])
    handler = logging.StreamHandler()
    handler.setFormatter(described.pop("()")(**described))
    lines: list[str] = []
    handler.emit = lambda record: lines.append(handler.format(record))  # type: ignore[method-assign]
    logger = logging.getLogger("crpbot.test")
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        log(logger)
    finally:
        logger.removeHandler(handler)
    return lines[0]


def fail(logger: logging.Logger) -> None:
    try:
        raise ValueError("no candles")
    except ValueError:
        logger.exception("run %d failed", 7)


def test_a_json_line_has_message_ids_and_the_traceback() -> None:
    with bound_contextvars(request_id="abc", release_id=3):
        line = json.loads(format_line("json", fail))
    assert (line["event"], line["level"], line["logger"]) == ("run 7 failed", "error", "crpbot.test")
    assert (line["request_id"], line["release_id"]) == ("abc", 3)
    assert line["timestamp"].endswith("Z")
    assert "ValueError: no candles" in line["exception"]


def test_a_text_line_reads_from_left_to_right_with_the_ids_at_its_end() -> None:
    with bound_contextvars(run_id=7):
        text = format_line("text", fail)
    first, *traceback = text.splitlines()
    assert first.endswith("ERROR crpbot.test run 7 failed run_id=7")
    assert traceback[-1] == "ValueError: no candles"


def test_another_format_is_refused_at_the_start() -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        env=environment(CRPBOT_LOG_FORMAT="xml"),
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "CRPBOT_LOG_FORMAT is 'xml'; use 'text' or 'json'" in done.stderr


async def _answer_with_ids(scope: Any, receive: Any, send: Any) -> None:
    async def look() -> dict[str, Any]:
        return get_contextvars()

    body = json.dumps([get_contextvars(), await start_shared(look())]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("given", ["proxy-4711.abc", "short", "two words", "x" * 65, 'a";drop', "ümläut12"])
def test_a_request_keeps_the_sound_id_of_a_proxy_and_gets_one_otherwise(given: str) -> None:
    answer = async_to_sync(ask)(RequestIds(_answer_with_ids), path="/", x_request_id=given)
    own, shared = answer.json()
    assert answer.headers["x-request-id"] == own["request_id"]
    assert (own["request_id"] == given) == (given == "proxy-4711.abc")
    assert len(own["request_id"]) >= 8
    assert shared == {}, "work for many requests names none of them"
    assert "request_id" not in get_contextvars()


def test_an_origin_carries_the_ids_to_another_thread() -> None:
    with bound_contextvars(request_id="abc", release_id=3, run_id=9):
        origin = correlation.capture()
    seen: list[dict[str, Any]] = []

    def work() -> None:
        with correlation.resume(origin, run_id=11):
            seen.append(get_contextvars())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [{"request_id": "abc", "release_id": 3, "run_id": 11}]


@pytest.mark.processes
@pytest.mark.slow
def test_every_line_of_a_worker_is_json_and_those_of_a_run_name_it(start_worker: StartWorker) -> None:
    with bound_contextvars(request_id="request-of-olivia", release_id=3):
        run = factories.run(factories.market(), epochs=1)
    worker = start_worker(**JSON)

    wait_until(lambda: "attempt 1 over" in worker.output, what="the end of the run")
    assert TrainingRun.objects.get(pk=run.pk).state == JobState.SUCCEEDED
    worker.kill()  # told to stop, Celery would write a line of its own, past every logger
    lines = parse(worker.output)
    of_run = [line for line in lines if line.get("run_id") == run.pk]
    assert [line["event"].partition(":")[2].split()[0] for line in of_run] == ["attempt", "attempt"]
    assert {(line["request_id"], line["release_id"]) for line in of_run} == {("request-of-olivia", 3)}
    assert any(line["logger"].startswith("celery") for line in lines), "Celery's own lines too"


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.usefixtures("committed")
def test_every_line_of_a_web_process_is_json_with_the_id_of_its_request(
    tmp_path: Path, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in JSON.items():
        monkeypatch.setenv(name, value)
    token = factories.token(factories.person("anna", "approver"), "approver")
    headers = {"Authorization": f"Bearer {token}", "X-Request-ID": "pin-by-anna-1"}
    with web(tmp_path / "web.log", settings.REDIS_URL) as service:
        pinned = httpx.post(
            f"{service.url}/api/v1/pointer/pin/", json={"reason": "it trades oddly"}, headers=headers
        )
        assert pinned.status_code == 409
    lines = parse((tmp_path / "web.log").read_text())
    assert {"uvicorn.error", "crpbot.request_ids"} <= {line["logger"] for line in lines}
    (own,) = [line for line in lines if line["logger"] == "crpbot.request_ids"]
    assert own["request_id"] == pinned.headers["x-request-id"] == "pin-by-anna-1"
    assert own["event"].startswith("POST /api/v1/pointer/pin/: 409 in ")
