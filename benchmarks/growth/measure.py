"""What every page, list and decision takes on one history: seconds and queries, in this process."""

import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from django.db import connection, connections
from django.test import Client
from django.utils import timezone

from accounts import services as accounts
from accounts.models import User
from accounts.roles import Actor, Role
from audit import services as audit
from deploy.bots import fleet, live_windows
from deploy.models import Bot, Release
from deploy.pointer import pointer
from deploy.pointer.fallback import check_fallback
from deploy.releases import decide, settle
from deploy.releases import launch as launching
from gates.models import Diagnosis
from tests import scenarios
from training.models import Coin, Dataset, TrainingRun

OPERATOR = Actor("olivia", frozenset({Role.OPERATOR}))
PAGES = {
    "board": "/",
    "launch form": "/launch/",
    "releases": "/releases/",
    "releases, last page": "/releases/?page=100000",
    "a release": "/releases/{release}/",
    "its report": "/releases/{release}/report/",
    "the live release": "/releases/{live}/",
    "its live charts": "/releases/{live}/live/BTC/",
    "runs": "/runs/",
    "runs, last page": "/runs/?page=100000",
    "a run": "/runs/{run}/",
    "bundles": "/bundles/",
    "bots": "/bots/",
    "datasets": "/datasets/",
    "a diagnosis": "/diagnoses/{diagnosis}/",
    "policies": "/policies/",
    "coins": "/coins/",
}
LISTS = {
    "releases/": "/api/v1/releases/",
    "releases/, 500 rows": "/api/v1/releases/?limit=500",
    "releases/, end": "/api/v1/releases/?offset={last_release}",
    "a release": "/api/v1/releases/{release}/",
    "runs/": "/api/v1/runs/",
    "runs/, end": "/api/v1/runs/?offset={last_run}",
    "diagnoses/": "/api/v1/diagnoses/",
    "diagnoses/, end": "/api/v1/diagnoses/?offset={last_run}",
    "bundles/": "/api/v1/bundles/",
    "datasets/": "/api/v1/datasets/",
    "bots/": "/api/v1/bots/",
    "audit/": "/api/v1/audit/",
    "audit/, end": "/api/v1/audit/?offset={last_event}",
    "acknowledgements/": "/api/v1/moves/{revision}/acknowledgements/",
    "alarms/": "/api/v1/alarms/",
    "coins/": "/api/v1/coins/",
}
ADMIN = {
    "audit": "/admin/audit/auditevent/",
    "audit, last page": "/admin/audit/auditevent/?p={last_admin_page}",
    "audit, search without a hit": "/admin/audit/auditevent/?q=nothing-like-it",
    "runs": "/admin/training/trainingrun/",
    "diagnoses": "/admin/gates/diagnosis/",
    "bots": "/admin/deploy/bot/",
    "acknowledgements": "/admin/deploy/acknowledgement/",
}


@dataclass(frozen=True)
class Taken:
    """What one thing took: the median time, and the queries of one time."""

    milliseconds: float
    queries: int = 0
    bytes: int = 0


def measure_reads(release: int, *, times: int) -> dict[str, Taken]:
    """Every page, list and admin page. Raises RuntimeError for an answer other than 200."""
    found = find_examples(release)
    client = sign_in()
    taken = {}
    for kind, addresses in (("page", PAGES), ("API", LISTS), ("admin", ADMIN)):
        hear_from_all_bots()
        for name, address in addresses.items():
            taken[f"{kind}: {name}"] = _take_get(client, address.format(**found), times)
    return taken


def hear_from_all_bots() -> None:
    """As if each had just sent a heartbeat: building the long history takes longer than a bot may be silent."""
    Bot.objects.update(last_heard_at=timezone.now())


def measure_decisions(release: int, *, times: int) -> dict[str, Taken]:
    """Settling, launching, pinning, looking at the live gates, the readiness of the fallback."""
    hear_from_all_bots()
    taken = {
        "live-gate look": _take(live_windows.load_live_gate_status, times),
        "fleet count": _take(lambda: fleet.count_bots(pointer.get_current(), None), times),
        "readiness of the fallback": _take(check_fallback, times),
        "settle, three coins": _take_prepared(_prepare_release, settle.advance, times),
        "launch": _take(_launch, times),
        "pin": _take_prepared(
            restore, lambda _: decide.pin(actor=scenarios.APPROVER, reason="a benchmark"), times
        ),
    }
    restore()
    return taken


def measure_verify(*, pins: int) -> dict[str, Taken]:
    """Verifying the whole audit chain, and the slowest pin meanwhile."""
    slowest, is_over = [0.0], threading.Event()

    def keep_pinning() -> None:
        try:
            for _ in range(pins):
                if is_over.is_set():
                    break
                restore()
                start = perf_counter()
                decide.pin(actor=scenarios.APPROVER, reason="a benchmark")
                slowest.append(perf_counter() - start)
        finally:
            connections.close_all()

    thread = threading.Thread(target=keep_pinning)
    start = perf_counter()
    thread.start()
    broken = audit.verify()
    seconds = perf_counter() - start
    is_over.set()
    thread.join()
    restore()
    if broken:
        raise RuntimeError(f"the chain of the benchmark is broken: {broken[:3]}")
    return {
        "verify_audit": Taken(seconds * 1000),
        "slowest pin during verify_audit": Taken(max(slowest) * 1000),
    }


def measure_coins(many: int) -> dict[str, Taken]:
    """Queries from the first finished measurement to the settled release, with three coins and with many."""
    taken = {"three coins": _settle_by_jobs()}
    added = [Coin.objects.create(symbol=f"X{number}", is_required=False) for number in range(many - 3)]
    before, all_coins = scenarios.COINS, (*scenarios.COINS, *(coin.symbol for coin in added))
    setattr(scenarios, "COINS", all_coins)  # noqa: B010 - the scenarios have three
    try:
        taken[f"{many} coins"] = _settle_by_jobs()
    finally:
        scenarios.COINS = before
    return taken


def _settle_by_jobs() -> Taken:
    release = scenarios.Build(
        seed=next(_seeds), figures=scenarios.for_every_coin(scenarios.inaccurate)
    ).release()
    measurements = [row.bundle.measurements.get() for row in release.coins.all() if row.bundle]
    with capture() as asked:
        start = perf_counter()
        for measurement in measurements:
            settle.advance_for(measurement)
        seconds = perf_counter() - start
    if Release.objects.get(pk=release.pk).state == "building":
        raise RuntimeError("the release of the benchmark did not settle")
    return Taken(seconds * 1000, len(asked))


def _seed_numbers() -> Iterator[int]:
    number = 1_000
    while True:
        number += 1
        yield number


_seeds = _seed_numbers()


def find_examples(release: int) -> dict[str, int]:
    move, run = pointer.get_current(), TrainingRun.objects.first()
    diagnosis = Diagnosis.objects.filter(release_coins__release=release).first()
    assert move is not None and move.release_id is not None and run is not None and diagnosis is not None
    events = audit.get_last_seq()
    return {
        "release": release,
        "live": move.release_id,
        "run": run.pk,
        "diagnosis": diagnosis.pk,
        "revision": move.revision,
        "last_release": max(0, Release.objects.count() - 50),
        "last_run": max(0, TrainingRun.objects.count() - 50),
        "last_event": events - 50,
        "last_admin_page": events // 50,
    }


def sign_in() -> Client:
    name, roles = "growth-reader", [Role.VIEWER, Role.OPERATOR, Role.APPROVER]
    user = User.objects.filter(username=name).first() or accounts.create_user(
        name, password=None, roles=roles, actor="the benchmark", is_staff=True
    )
    client = Client()
    client.force_login(user)
    return client


def _take_get(client: Client, address: str, times: int) -> Taken:
    size = 0

    def get() -> None:
        nonlocal size
        answer = client.get(address)
        if answer.status_code != 200:
            raise RuntimeError(f"{address}: {answer.status_code}")
        size = len(answer.content)

    taken = _take(get, times)
    return Taken(taken.milliseconds, taken.queries, size)


def _take(act: Callable[[], Any], times: int) -> Taken:
    return _take_prepared(lambda: None, lambda _: act(), times)


def _take_prepared(prepare: Callable[[], Any], act: Callable[[Any], Any], times: int) -> Taken:
    """Prepare and act; once to fill caches, once to count queries, then for the time."""
    act(prepare())
    prepared = prepare()
    with capture() as asked:
        act(prepared)
    seconds = []
    for _ in range(times):
        prepared = prepare()
        start = perf_counter()
        act(prepared)
        seconds.append(perf_counter() - start)
    return Taken(statistics.median(seconds) * 1000, len(asked))


@contextmanager
def capture() -> Iterator[list[str]]:
    """The queries, as SQL. Django's own capture ends where a request gives its connection back to the pool."""
    asked = list[str]()

    def note(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        asked.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield asked


def _prepare_release() -> Release:
    figures = scenarios.for_every_coin(scenarios.inaccurate)
    return scenarios.Build(seed=next(_seeds), figures=figures).release()


def restore() -> None:
    """Bring the release that was live last back, whatever was pinned since."""
    now = pointer.get_current()
    assert now is not None
    if now.kind == "swap":
        return
    live = Release.objects.filter(status__state="rolled_back", purpose="candidate").order_by("-id").first()
    assert live is not None
    decide.restore(live, actor=scenarios.SECOND_APPROVER, reason="a benchmark", revision=now.revision)


def _launch() -> None:
    """Launch and cancel: the runs would train."""
    chosen = {
        coin.symbol: Dataset.objects.filter(coin=coin, verdict="passed").latest("id")
        for coin in scenarios.coins()
    }
    release = launching.launch("v7_fixed", actor=OPERATOR, datasets=chosen, parameters={"epochs": 1})
    decide.cancel(release, actor=OPERATOR, reason="a benchmark")
