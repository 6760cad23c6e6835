"""A real web process, whose database, Redis and file store fail: what it still answers, and how soon."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import boto3
import httpx
import pytest
import redis
from django.conf import settings
from django.db import connection, transaction
from moto.server import ThreadedMotoServer

from accounts.models import User
from audit import services as audit
from deploy.edge.freshness import FRESH_SECONDS
from deploy.models import PointerMove
from deploy.pointer import pointer
from deploy.releases import decide
from deploy.rules import MoveKind
from tests import factories, scenarios
from tests.loopback import free_port, wait_until_it_answers
from tests.processes import Process, start, wait_until
from tests.scenarios import APPROVER
from tests.tcp_proxy import Fault, Proxy, connect_to
from training import artifact_store
from training.models import Artifact

pytestmark = [
    pytest.mark.postgresql,
    pytest.mark.processes,
    pytest.mark.slow,
    pytest.mark.usefixtures("committed"),
    pytest.mark.skipif(
        "connection.vendor != 'postgresql'", reason="SQLite is a file, and does not fail by itself"
    ),
]

PIN_SECONDS = 4.0
"""Far above the second that a pin may take, for a busy machine; docs/chaos.md has the real figures."""
DATABASE_SECONDS = 2
FROZEN_SECONDS = 15.0
"""The answer of a frozen database is waited for DATABASE_SECONDS, at most a few times, never without end."""
BUCKET = "crpbot-test"
METRICS_TOKEN = "a token that nobody can guess, of 40 letters"


@dataclass
class Service:
    """A web process, and what stands before its database, Redis and store."""

    url: str
    store: Proxy
    redis: Proxy
    database: Proxy
    approver: str
    bot: str

    def pin(self) -> tuple[int, float]:
        """The status of a pin, and the seconds until it was answered."""
        headers = {"Authorization": f"Bearer {self.approver}"}
        began = time.monotonic()
        answer = httpx.post(
            f"{self.url}/api/v1/pointer/pin/", json={"reason": "it trades oddly"}, headers=headers, timeout=60
        )
        return answer.status_code, time.monotonic() - began

    def ask(self, path: str) -> tuple[int, float]:
        began = time.monotonic()
        answer = httpx.get(f"{self.url}{path}", headers={"Authorization": f"Bearer {self.bot}"}, timeout=60)
        return answer.status_code, time.monotonic() - began

    def expect_answers_from_memory(self) -> None:
        """Bots get the signed snapshot, and the process counts as alive."""
        for path in ("/api/v1/active/signed/", "/healthz/live"):
            status, seconds = self.ask(path)
            assert status == 200, path
            assert seconds < PIN_SECONDS, path


@pytest.fixture
def service(
    tmp_path: Path, broker: redis.Redis, approver: User, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """In use: inherited, with a fallback. The files of the fallback are in an S3, too."""
    scenarios.service_in_use()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with ExitStack() as stack:
        s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        s3.start()
        stack.callback(s3.stop)
        host, port = s3.get_host_and_port()
        _upload(f"http://{host}:{port}")
        connection.ensure_connection()
        info = connection.connection.info
        database_socket = f"{info.host}/.s.PGSQL.{info.port}"
        store, redis_, database = (
            stack.enter_context(Proxy(connect_to(address)))
            for address in ((host, port), settings.REDIS_URL.removeprefix("unix://"), database_socket)
        )
        own = free_port()
        command = [sys.executable, "-m", "uvicorn", "crpbot.asgi:application", "--port", str(own)]
        process: Process = start(
            *command,
            log=tmp_path / "web.log",
            CRPBOT_DATABASE_URL=f"postgres://postgres@127.0.0.1:{database.port}/any",
            CRPBOT_DATABASE_ANSWER_SECONDS=str(DATABASE_SECONDS),
            CRPBOT_REDIS_URL=f"redis://127.0.0.1:{redis_.port}/0",
            CRPBOT_S3_BUCKET=BUCKET,
            CRPBOT_S3_ACCESS_KEY="test",
            CRPBOT_S3_SECRET_KEY="test",
            CRPBOT_S3_REGION="us-east-1",
            CRPBOT_S3_ENDPOINT=f"http://127.0.0.1:{store.port}",
            CRPBOT_TEST_SHARED_CACHE="1",
            CRPBOT_METRICS_TOKEN=METRICS_TOKEN,
        )
        stack.callback(process.stop)
        url = f"http://127.0.0.1:{own}"
        wait_until_it_answers(f"{url}/healthz")
        tokens = factories.token(approver, "approver"), factories.token(factories.person("trader"), "bot")
        found = Service(url, store, redis_, database, *tokens)
        assert found.ask("/api/v1/active/signed/")[0] == 200
        yield found


def _upload(endpoint: str) -> None:
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    for sha256 in Artifact.objects.values_list("sha256", flat=True).distinct():
        key = artifact_store.key(sha256)
        client.put_object(Bucket=BUCKET, Key=key, Body=artifact_store.read(sha256))


def approve_another(seed: int) -> None:
    move = pointer.get_current()
    assert move is not None
    decide.approve(
        scenarios.awaiting_approval(seed=seed), actor=APPROVER, reason="next", revision=move.revision
    )


@pytest.mark.long
def test_a_pin_answers_while_the_store_or_redis_fails(service: Service) -> None:
    faults: list[tuple[Proxy, Fault]] = [
        (service.store, Fault.NONE),
        (service.store, Fault.SLOW),
        (service.store, Fault.FREEZE),
        (service.store, Fault.CUT),
        (service.store, Fault.DOWN),
        (service.redis, Fault.FREEZE),
        (service.redis, Fault.DOWN),
    ]
    for seed, (proxy, fault) in enumerate(faults, start=1):
        approve_another(seed)
        with proxy.failing(fault):
            status, seconds = service.pin()
            print(f"{'store' if proxy is service.store else 'Redis'} {fault}: {seconds:.2f} s")
            assert (status, pointer.get_current().kind) == (200, MoveKind.PIN), fault  # type: ignore[union-attr]
            assert seconds < PIN_SECONDS, fault
            service.expect_answers_from_memory()
            assert service.ask("/healthz")[0] == 200, "another web process would have the same fault"
        if proxy is service.store and fault != Fault.NONE:
            assert "bytes were not checked" in PointerMove.objects.get(pk=2 * seed + 1).reason, fault


def test_a_frozen_database_refuses_a_pin_in_time_and_bots_are_served(service: Service) -> None:
    with service.database.failing(Fault.FREEZE):
        service.expect_answers_from_memory()
        status, seconds = service.pin()
        print(f"database frozen: a pin is refused after {seconds:.1f} s")
        assert (status, seconds < FROZEN_SECONDS) == (503, True)
        status, seconds = service.ask("/healthz")
        assert (status, seconds < FROZEN_SECONDS) == (503, True)
        service.expect_answers_from_memory()
    assert pointer.get_current().revision == 1, "what was refused is not done later"  # type: ignore[union-attr]
    assert service.pin()[0] == 200


def test_metrics_answer_while_the_database_is_frozen_and_delay_no_pin(service: Service) -> None:
    def scrape() -> tuple[str, float]:
        time.sleep(FRESH_SECONDS)  # figures that are fresh are given again
        began = time.monotonic()
        headers = {"Authorization": f"Bearer {METRICS_TOKEN}"}
        return httpx.get(f"{service.url}/metrics", headers=headers, timeout=60).text, time.monotonic() - began

    wait_until(lambda: "crpbot_database_up 1.0" in scrape()[0], what="figures of the database")
    with service.database.failing(Fault.FREEZE):
        text, seconds = scrape()
        assert ("crpbot_database_up 0.0" in text, "crpbot_redis_up 1.0" in text) == (True, True)
        assert seconds < PIN_SECONDS
    with connection.cursor() as cursor, ThreadPoolExecutor(20) as scrapers, transaction.atomic():
        cursor.execute("LOCK TABLE training_worker IN ACCESS EXCLUSIVE MODE")
        scraped = [scrapers.submit(scrape) for _ in range(20)]
        time.sleep(FRESH_SECONDS + 0.3)
        status, seconds = service.pin()
        answers = [each.result() for each in scraped]
    print(f"while 20 scrapes wait for a locked table, a pin takes {seconds:.2f} s")
    assert (status, seconds < PIN_SECONDS) == (200, True)
    assert all("crpbot_database_up 0.0" in text and wait < PIN_SECONDS for text, wait in answers)


@pytest.mark.parametrize("number", [1, 10], ids=["one connection", "a pool of connections"])
def test_the_next_pin_after_a_restart_of_the_database_works(service: Service, number: int) -> None:
    for _ in range(number):
        assert service.ask("/healthz")[0] == 200
    service.database.cut_connections()
    status, seconds = service.pin()
    assert (status, seconds < PIN_SECONDS) == (200, True)


def test_bots_are_served_while_somebody_holds_the_audit_head(service: Service) -> None:
    with audit.locked():
        service.expect_answers_from_memory()
        assert service.ask("/healthz")[0] == 200
    assert service.pin()[0] == 200
