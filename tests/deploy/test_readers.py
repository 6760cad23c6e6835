"""Readers of the API never take what a pin needs: connections are bounded, and some are kept for it."""

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from django.db import connection

from accounts.models import User
from tests import factories, scenarios
from tests.long_tests import long_except
from tests.loopback import free_port, wait_until_it_answers
from tests.processes import Process, start

pytestmark = [
    pytest.mark.postgresql,
    pytest.mark.processes,
    pytest.mark.usefixtures("committed", "broker"),
    pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no connections to run out of"),
]

POOL = 8


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web process as in production, with a small pool; answers its address."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "crpbot.asgi:application", "--port", str(port)]
    process: Process = start(*command, log=tmp_path / "web.log", CRPBOT_DATABASE_POOL=str(POOL))
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/healthz")
        yield f"http://127.0.0.1:{port}/api/v1/"
    finally:
        process.stop()


def count_connections() -> int:
    """The connections to this database, without the test's own."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize("readers", long_except([20, 150], lambda readers: readers == 20))
def test_a_crowd_of_readers_neither_delays_nor_refuses_a_pin(
    server: str, approver: User, operator: User, readers: int
) -> None:
    scenarios.service_in_use()
    reader = {"Authorization": f"Bearer {factories.token(operator, 'operator')}"}
    pinner = {"Authorization": f"Bearer {factories.token(approver, 'approver')}"}
    statuses: Counter[int] = Counter()
    ended = threading.Event()

    def read() -> None:
        with httpx.Client(headers=reader, timeout=30) as client:
            while not ended.is_set():
                statuses[client.get(f"{server}coins/").status_code] += 1

    threads = [threading.Thread(target=read) for _ in range(readers)]
    for thread in threads:
        thread.start()
    try:
        with httpx.Client(headers=pinner, timeout=30) as client:
            answers = [
                client.post(f"{server}pointer/pin/", json={"reason": "it trades oddly"}).status_code
                for _ in range(10)
            ]
        connections = count_connections()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert answers == [200] + [409] * 9, "the first pins, the others find it pinned"
    assert set(statuses) == {200}
    assert connections <= POOL
