"""Cost stays flat as history grows: the short form of `make growth`, by queries and plans, and never by time."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Session
from audit.models import AuditEvent
from benchmarks.growth import history, measure
from common.pages import compute_fingerprint
from common.paging import fetch_slice
from deploy.models import Release, ReleaseCoin, ReleaseStatus
from deploy.prune import prune
from deploy.releases import board, settle
from gates.models import Attempt, Diagnosis, Measurement
from tests import factories, scenarios
from training.jobs import queue
from training.models import Coin, Epoch, RunLine, TrainingRun

RELEASES = 60
FULL_PAGES = 150
"""With so many releases and bots every page that is not in NOT_FULL has all its rows."""
NOT_FULL = {
    "page: releases, last page", "page: runs, last page", "admin: audit, last page", "API: releases/, 500 rows",
    "page: datasets", "API: datasets/",
}  # fmt: skip
GROWING = (
    "audit_auditevent",
    "deploy_livewindow",
    "gates_gateresult",
    "training_epoch",
    "training_runline",
)
"""Tables with many rows for each release or bot: no page may read all of one."""

pytestmark = pytest.mark.slow


@pytest.fixture
def reader(db: None) -> Client:
    return measure.sign_in()


def capture(client: Client, addresses: dict[str, str]) -> dict[str, list[str]]:
    """The queries of each address, by its name."""
    asked = {}
    for name, address in addresses.items():
        client.get(address)  # what a process caches is there from the second time on
        with CaptureQueriesContext(connection) as captured:
            answer = client.get(address)
        assert answer.status_code == 200, (name, answer.status_code)
        asked[name] = [query["sql"] for query in captured]
        assert asked[name], name
    return asked


def measure_bodies(client: Client, addresses: dict[str, str]) -> dict[str, int]:
    """The bytes of each answer, by its name."""
    return {name: len(client.get(address).content) for name, address in addresses.items()}


def list_scanned(queries: list[str]) -> set[str]:
    """The growing tables that a query reads from beginning to end although it may use every index."""
    scanned = set[str]()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        for query in queries:
            if query.startswith("SELECT"):
                cursor.execute(f"EXPLAIN (FORMAT JSON) {query}")
                plan = json.dumps(cursor.fetchone()[0])
                scanned.update(re.findall(r'"Node Type": "Seq Scan"[^}]*?"Relation Name": "(\w+)"', plan))
    return scanned & set(GROWING)


@pytest.mark.postgresql
@pytest.mark.long
def test_pages_and_lists_ask_as_much_of_a_long_history_as_of_a_short_one(committed: None) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("the history is multiplied by PostgreSQL")
    prototype, client = history.prepare(), measure.sign_in()
    history.multiply(prototype, 3)
    found = measure.find_examples(prototype.pk)
    addresses = {
        f"{kind}: {name}": address.format(**found)
        for kind, named in (("page", measure.PAGES), ("API", measure.LISTS), ("admin", measure.ADMIN))
        for name, address in named.items()
    }
    before = capture(client, addresses)
    history.multiply(prototype, RELEASES, already=3)
    after = capture(client, addresses)
    history.multiply(prototype, FULL_PAGES, already=RELEASES)
    sizes = measure_bodies(client, addresses)
    history.multiply(prototype, 2 * FULL_PAGES, already=FULL_PAGES)
    grown = {name: size / sizes[name] for name, size in measure_bodies(client, addresses).items()}
    assert {name: ratio for name, ratio in grown.items() if ratio > 1.05 and name not in NOT_FULL} == {}
    more = {
        name: (len(before[name]), len(asked))
        for name, asked in after.items()
        # An admin list with more than one page reads the keys of a page first.
        if len(asked) > len(before[name]) + name.startswith("admin: ")
    }
    assert more == {}
    assert {name: tables for name, asked in after.items() if (tables := list_scanned(asked))} == {}


def settle_by_jobs(coins: int, seed: int) -> int:
    """The queries from the first finished measurement of a release with so many coins to its settlement."""
    names = (*scenarios.COINS, *(f"C{number}" for number in range(coins - len(scenarios.COINS))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenarios, "COINS", names)
        figures = scenarios.for_every_coin(scenarios.inaccurate)
        release = scenarios.Build(seed=seed, figures=figures).release()
    measurements = [row.bundle.measurements.get() for row in release.coins.all() if row.bundle]
    with CaptureQueriesContext(connection) as asked:
        for measurement in measurements:
            settle.advance_for(measurement)
    assert Release.objects.get(pk=release.pk).state == "rejected"
    return len(asked)


def test_the_jobs_of_a_release_cost_as_much_as_it_has_coins(db: None) -> None:
    """Each finished job advanced all coins before: ten times the coins cost a hundred times as much."""
    settle_by_jobs(3, seed=1)
    few, many = settle_by_jobs(3, seed=2), settle_by_jobs(12, seed=3)
    assert many < 4.4 * few


def test_waiting_jobs_whose_messages_wait_are_not_sent_again(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = factories.market()
    waiting = [factories.run(dataset, seed=seed) for seed in range(3)]
    TrainingRun.objects.update(enqueued_at=timezone.now() - timedelta(hours=1))
    sent, held = list[int](), 3
    monkeypatch.setattr(queue, "enqueue", lambda job: sent.append(job.pk))
    monkeypatch.setattr(queue, "_count_messages", lambda task: held)
    due = TrainingRun.objects.due(timezone.now(), resend_after=timezone.now())
    queue.resend(TrainingRun, due)
    assert sent == []
    held = 2  # a message was lost; which one is not known
    queue.resend(TrainingRun, due)
    assert sorted(sent) == [run.pk for run in waiting]
    sent.clear()
    held = 3
    TrainingRun.objects.filter(pk=waiting[0].pk).update(enqueued_at=None)
    queue.resend(TrainingRun, due)
    assert sent == [waiting[0].pk], "nobody has been told of this one"


def test_the_longest_page_of_releases_works_and_carries_no_gates(reader: Client) -> None:
    scenarios.service_in_use()
    first = Release.objects.latest("id")
    for _ in range(400):
        release = Release.objects.create(
            line="v7_fixed",
            interval_seconds=first.interval_seconds,
            policy=first.policy,
            budget=first.budget,
            launched_by="x",
            deadline_at=timezone.now(),
        )
        ReleaseStatus.objects.create(release=release, state="rejected")
        ReleaseCoin.objects.bulk_create(
            ReleaseCoin(
                release=release,
                coin=row.coin,
                dataset=row.dataset,
                bundle=row.bundle,
                diagnosis=row.diagnosis,
            )
            for row in first.coins.all()
        )
    answer = reader.get("/api/v1/releases/?limit=400")
    assert (answer.status_code, len(answer.json()["results"])) == (200, 400)
    assert len(answer.content) < 1_000_000
    assert "gates" not in answer.json()["results"][0]["coins"][0]


@pytest.mark.parametrize("offset", [0, 1, 30, 57, 59, 60])
def test_a_page_has_the_same_rows_from_whichever_end_it_is_read(db: None, offset: int) -> None:
    Coin.objects.bulk_create(Coin(symbol=f"P{number:03}", is_required=False) for number in range(60))
    rows = Coin.objects.filter(symbol__startswith="P").order_by("symbol")
    assert fetch_slice(rows, offset, offset + 10, 60) == list(rows[offset : offset + 10])


def test_what_is_old_is_pruned_and_what_decisions_rest_on_is_kept(db: None) -> None:
    scenarios.service_in_use()
    old = timezone.now() - timedelta(days=400)
    ended, running = (factories.run(factories.market(), seed=seed) for seed in (1, 2))
    TrainingRun.objects.filter(pk=ended.pk).update(finished_at=old)
    for run in (ended, running):
        RunLine.objects.create(run=run, attempt=1, text="epoch 1")
        Epoch.objects.create(run=run, number=1, attempt=1, seconds=1, rows_per_second=1, is_best=True)
    RunLine.objects.update(at=old)
    Session.objects.create(session_key="old", session_data="", expire_date=old)
    Session.objects.create(session_key="new", session_data="", expire_date=timezone.now() + timedelta(days=1))
    kept = {
        model: model.objects.count()
        for model in (AuditEvent, Measurement, Diagnosis, Attempt, Epoch, TrainingRun)
    }
    assert prune() == 2
    assert [line.run for line in RunLine.objects.all()] == [running]
    assert [session.pk for session in Session.objects.all()] == ["new"]
    assert {model: model.objects.count() for model in kept} == kept
    assert prune() == 0


def test_the_log_of_a_run_that_goes_on_holds_no_other_log_up(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.prune.MAX_ROWS", 2)
    old = timezone.now() - timedelta(days=400)
    running, ended, recent = (factories.run(factories.market(), seed=seed) for seed in (1, 2, 3))
    TrainingRun.objects.filter(pk=ended.pk).update(finished_at=old)
    RunLine.objects.bulk_create(
        RunLine(run=run, attempt=1, text=f"epoch {epoch}")
        for run in (running, ended, recent)
        for epoch in range(3)
    )
    RunLine.objects.exclude(run=recent).update(at=old)
    assert [prune(), prune(), prune()] == [2, 1, 0]
    assert {line.run for line in RunLine.objects.all()} == {running, recent}


def test_browsers_that_refresh_the_board_share_one_reading_of_it(
    db: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "_last", None)
    settings.BOARD_SHARED_SECONDS = 60.0
    scenarios.service_in_use()
    client, refresh = measure.sign_in(), {"HX-Request": "true"}

    def read(address: str, **options: Any) -> str:
        return compute_fingerprint(client.get(address, **options).content.decode())

    shown = read("/", headers=refresh)
    scenarios.awaiting_approval()
    with measure.capture() as asked:
        assert read("/", headers=refresh) == shown
    assert not [query for query in asked if "deploy_" in query]
    assert read("/") != shown, "who opens the page reads it"
    settings.BOARD_SHARED_SECONDS = 0.0
    assert read("/", headers=refresh) != shown


def test_a_browser_that_has_the_content_is_answered_unrendered(
    db: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "_last", None)
    settings.BOARD_SHARED_SECONDS = 60.0
    scenarios.service_in_use()
    refresh, approver, viewer = {"HX-Request": "true"}, measure.sign_in(), Client()
    viewer.force_login(factories.person("vera", "viewer"))

    def read(client: Client, query: str = "") -> Any:
        return client.get(f"/?{query}", headers=refresh)

    found = re.search(r"seen=\w{16}", read(approver).content.decode())
    assert found
    answer = read(approver, found[0])
    assert (answer.status_code, answer.templates) == (204, [])
    assert read(viewer, found[0]).status_code == 200, "a viewer cannot pin, so the page is another"
    scenarios.awaiting_approval()
    assert read(approver, found[0]).status_code == 204
    monkeypatch.setattr(board, "_last", None)
    assert read(approver, found[0]).status_code == 200


def test_a_reading_of_the_board_that_hangs_keeps_no_other_browser_waiting(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "MAX_WAIT_SECONDS", 0.01)
    client = measure.sign_in()
    with board._reading:
        assert client.get("/", headers={"HX-Request": "true"}).status_code == 503
    assert client.get("/", headers={"HX-Request": "true"}).status_code == 200
