"""Example data for every page: a live release, one to decide, one in training, failed ones, bots, workers.

The services write the rows. What a worker would report is written as the worker writes it.
"""

import io
import itertools
import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
from django.utils import timezone

from accounts.models import User
from accounts.roles import Actor
from deploy.bots import live_gates
from deploy.bots.heartbeat_checks import Heartbeat
from deploy.bots.heartbeats import receive_heartbeat
from deploy.models import BackupTask, Bot, Release, ReleaseCoin, ReleaseStatus
from deploy.pointer import pointer
from deploy.releases import decide
from deploy.rules import Running
from gates.catalogue.live import Tally
from gates.models import Diagnosis
from gates.services import policies
from machines import services
from machines.cloud.protocol import Instance, Sighting
from machines.configuration import Configuration
from machines.control import lives
from machines.models import MachineUse
from machines.rules import Market
from mlcore import confidence_bands
from studies.models import Study, Trial
from studies.services import advance
from studies.services import launch as studies
from tests import factories, market_candles, scenarios
from tests.scenarios import APPROVER, LAUNCHER
from training.jobs import leases
from training.models import Coin, Dataset, Epoch, RunLine, TrainingRun, Worker
from training.rules import JobState
from training.services import annotations, coins, runs
from training.services.datasets import import_candles, simulate_candles

PEOPLE = {
    "victor": ["viewer"],
    "olivia": ["operator"],
    "anna": ["approver"],
    "arthur": ["approver"],
    "ada": ["viewer", "operator", "approver"],
    "norma": [],
}
STAFF = "ada"
FULL = "revision 3 is in use but not saved for a restart: the cache's disk is full (ENOSPC)"


@dataclass
class ExampleData:
    """The rows that page tests and screenshots refer to by name."""

    inherited: Release
    fallback: Release
    awaiting: Release
    building: Release
    rejected: Release
    failed_run: TrainingRun
    running_run: TrainingRun
    dataset: Dataset
    market: Dataset
    noise: Dataset
    diagnosis: Diagnosis
    bot: Bot
    study: Study


def create_people() -> dict[str, User]:
    made = {name: factories.person(name, *roles) for name, roles in PEOPLE.items()}
    User.objects.filter(username=STAFF).update(is_staff=True)
    return made


def create_examples(*, bars: int = 2_400) -> ExampleData:
    """v5 registered, v6 inherited, a release rejected and so v5 pinned, another to approve, another training."""
    market, noise = _upload(market_candles.generate(bars)), _upload(market_candles.random_levels(bars))
    for coin in scenarios.coins():
        scenarios.dataset(coin, is_simulated=True)
    fallback = scenarios.fallback()
    inherited = scenarios.inherited()
    datasets = {coin: _simulate(coin, bars) for coin in scenarios.coins()}
    rejected = scenarios.Build(
        seed=3,
        figures={
            "SOL": measurement_with_excess_up("SOL"),
            "BTC": measurement_with_histograms("BTC"),
            "ETH": measurement_with_histograms("ETH"),
        },
    ).settled()
    awaiting = scenarios.Build(
        seed=2,
        figures={coin: measurement_with_histograms(coin) for coin in scenarios.COINS},
        is_simulated=True,
    ).settled()
    create_workers()
    create_bots(awaiting)
    create_live_windows()
    failed = create_failed_run(next(iter(datasets.values())))
    building = create_building_release({coin: datasets[coin] for coin in datasets})
    running = TrainingRun.objects.filter(release_coin__release=building, state=JobState.RUNNING).latest("id")
    study = create_study(next(iter(datasets.values())))
    create_machines(failed, running)
    create_backups()
    diagnosis = Diagnosis.objects.get(release_coins__release=rejected, coin__symbol="SOL")
    return ExampleData(
        inherited,
        fallback,
        awaiting,
        building,
        rejected,
        failed,
        running,
        running.dataset,
        market,
        noise,
        diagnosis,
        Bot.objects.order_by("pk")[0],
        study,
    )


def _upload(frame: pl.DataFrame) -> Dataset:
    """Candles of BTC, uploaded by an operator."""
    coin, file = coins.find_coin("BTC"), io.BytesIO()
    frame.write_parquet(file)
    return import_candles(coin, file.getvalue(), name="BTC.parquet", actor=LAUNCHER).dataset


def _simulate(coin: Coin, bars: int) -> Dataset:
    return simulate_candles(coin, bars=bars, drift=1.2, seed=7, actor=LAUNCHER).dataset


def measurement_with_histograms(coin: str) -> dict[str, Any]:
    """A healthy measurement with histograms, for charts."""
    document = scenarios.healthy(coin)
    document["confidence"]["histogram"] = _bell(1 / 3, 1.0, 34, centre=0.58, width=0.09)
    document["logits"]["histogram"] = _bell(-3.0, 2.5, 44, centre=-0.2, width=0.9)
    document["reliability"] = [
        {
            "confidence": level / 100,
            "accuracy": level / 100 + 0.08 * math.sin(level),
            "rows": 40 * (90 - level),
        }
        for level in range(38, 86, 6)
    ]
    return document


def measurement_with_excess_up(coin: str) -> dict[str, Any]:
    """As `measurement_with_histograms`, but with too many Up predictions and too low an accuracy."""
    document = measurement_with_histograms(coin)
    document["shares"] = {"down": 0.17, "neutral": 0.305, "up": 0.525}
    less = 0.662 - document["accuracy"]["point"]
    document["accuracy"] |= {"point": 0.662, "lower": 0.641, "upper": 0.683, "standard_error": 0.0107}
    for part in (*document["stability"]["months"], *document["stability"]["volatility"]):
        part["accuracy"] += less
    document["skill"]["accuracy"] += less
    for rival in document["skill"]["naive"].values():
        rival |= {name: rival[name] + less for name in ("difference", "lower", "upper")}
    document["skill"]["baseline"]["accuracy"] += less
    return document


def _bell(low: float, high: float, bins: int, *, centre: float, width: float) -> dict[str, Any]:
    step = (high - low) / bins
    edges = [low + step * index for index in range(bins + 1)]
    counts = [round(900 * math.exp(-(((edge + step / 2 - centre) / width) ** 2) / 2)) for edge in edges[:-1]]
    return {"edges": edges, "counts": counts}


def create_workers() -> None:
    now = timezone.now()
    common = {"torch_version": "2.13.0", "code_version": "0.1.0", "started_at": now - timedelta(hours=5)}
    Worker.objects.create(
        name="gpu-1@desk",
        queues="training,gates",
        slots=1,
        device="NVIDIA A10G",
        memory_bytes=24 * 2**30,
        cuda_version="13.0",
        rate_usd_per_hour=Decimal("1.006"),
        last_heard_at=now + timedelta(minutes=10),  # alive for as long as the pages are looked at
        **common,
    )
    Worker.objects.create(
        name="cpu-2@desk",
        queues="gates",
        device="CPU",
        memory_bytes=16 * 2**30,
        rate_usd_per_hour=Decimal("0.17"),
        last_heard_at=now - timedelta(minutes=14),
        **common,
    )


def create_machines(failed: TrainingRun, running: TrainingRun) -> None:
    """Two lives that ended, one of them taken back, and one that trains a run now."""
    configuration = Configuration(
        "us-east-1", "", "crpbot-worker", "g5.xlarge", tuple(Market), 300.0, 600.0, 10.0
    )
    prices = {Market.SPOT: Decimal("0.45"), Market.ON_DEMAND: Decimal("1.006")}
    for market, usd in prices.items():
        services.set_price(
            instance_type="g5.xlarge",
            region="us-east-1",
            market=market,
            usd_per_hour=usd,
            actor=APPROVER,
            reason="the price list",
        )
    lives_so_far = ((failed, Market.SPOT, 2100, True), (failed, Market.ON_DEMAND, 1260, False))
    for number, (run, market, seconds, is_reclaimed) in enumerate(
        (*lives_so_far, (running, Market.SPOT, 0, False))
    ):
        now = timezone.now()
        started_at = now - timedelta(seconds=seconds or 480)
        machine = lives.request(
            configuration,
            market=market,
            usd_per_hour=prices[market],
            allowed_seconds=5400,
            actor="the gate",
            reason="runs wait",
            budget_id=run.budget_id,
            at=started_at - timedelta(seconds=20),
        )
        instance = Instance(
            id=f"i-0f09e5bb081e72a{number:02d}",
            life=machine.life,
            is_ours=True,
            instance_type="g5.xlarge",
            market=market,
            is_running=True,
            has_ended=False,
            started_at=started_at,
        )
        lives.follow(machine, Sighting(now, [instance]))
        MachineUse.objects.create(machine=machine, run=run, seconds_before=0, usd_before=0, seconds=240)
        if seconds:
            reason = "Server.SpotInstanceTermination" if is_reclaimed else "idle for 5 min"
            ended = replace(
                instance,
                is_running=False,
                has_ended=True,
                ended_at=now,
                end_reason=reason,
                is_reclaimed=is_reclaimed,
            )
            lives.follow(machine, Sighting(now, [ended]))
        else:
            lives.follow(machine, Sighting(now, [instance]))


def create_backups() -> None:
    """A backup that failed, the one after it, a drill, and another backup that is under way."""
    now = timezone.now()
    for hours, kind, state, result in (
        (27, "backup", "failed", {}),
        (26, "backup", "done", {"files": 42, "size": 7_600_000, "lost": [], "is_encrypted": True}),
        (25, "drill", "done", {"files": 42, "revision": 3, "releases": [1, 2]}),
        (0, "backup", "running", {}),
    ):
        BackupTask.objects.create(
            kind=kind,
            state=state,
            slot=1 if state == "running" else None,
            reason="the store of backups does not answer" if state == "failed" else "it is due",
            requested_by="the gate",
            started_at=now - timedelta(hours=hours),
            heard_at=now,
            ended_at=now - timedelta(hours=hours, minutes=-2) if hours else None,
            backup="20261129T094500Z-1234" if state == "done" else "",
            result=result,
        )


def create_bots(prefetched_next: Release) -> None:
    """Three bots on the live release, all with the fallback on disk; two are ready for the next release."""
    fallback = pointer.get_pinnable()
    assert fallback is not None
    for name, instances in {"trader": ("desk-1", "desk-2"), "paper": ("lab",)}.items():
        for instance in instances:
            is_ready = instance != "lab"
            ahead = {
                "prefetched_next": prefetched_next.pk if is_ready else None,
                "prefetched_fallback": fallback.pk,
            }
            send_heartbeat(name, instance, **ahead)
    # Live for as long as the pages are looked at.
    now = timezone.now()
    Bot.objects.update(first_heard_at=now - timedelta(days=9), last_heard_at=now + timedelta(minutes=10))


def create_live_windows() -> None:
    """Prediction counts of the last two hours, and late ones of v6."""
    now = pointer.get_current()
    assert now is not None
    start = timezone.now() - timedelta(hours=2)
    for number, (coin, turn) in enumerate(itertools.product(scenarios.COINS, range(8))):
        send_window(now.revision, coin, start + timedelta(minutes=15 * turn), build_healthy_tally(number))
    for turn in range(4):
        send_window(1, "BTC", start - timedelta(minutes=15 * turn), _exploded_tally(turn))


def send_window(revision: int, coin: str, at: datetime, tally: Tally) -> None:
    posted = scenarios.posted_window(tally, revision, at, coin=coin)
    live_gates.receive_window(posted, actor=Actor("trader", is_bot=True))


def build_healthy_tally(number: int) -> Tally:
    sure = [round(25 * math.exp(-(((edge - 0.57) / 0.09) ** 2) / 2)) for edge in confidence_bands.EDGES[:-1]]
    finite, down = sum(sure), 60 + 5 * (number % 7)
    classes = (down, 90, finite - down - 90)
    least, greatest = -2.6 - 0.2 * math.sin(number), 2.1 + 0.3 * math.cos(number)
    return Tally(finite, 0, classes, tuple(sure), least, greatest, 3, finite)


def _exploded_tally(turn: int) -> Tally:
    certain = (0,) * (confidence_bands.BANDS - 1) + (100,)
    return Tally(100, 0, (98, 1, 1), certain, -12_527.0 + 900 * turn, 9_301.0 - 700 * turn, 1400, 100)


def create_failing_bots() -> None:
    """One bot in each failing state; the example data has none."""
    now = pointer.get_current()
    assert now is not None
    send_heartbeat(
        "trader", "desk-3", revision=now.revision - 1, release=None, line=None, bundles={}, last_error=FULL
    )
    send_heartbeat(
        "trader", "desk-4", revision=now.revision + 4, stale_since=timezone.now() - timedelta(hours=2)
    )
    send_heartbeat("paper", "cellar")
    none = dict.fromkeys(("service", "revision", "line", "release"))
    send_heartbeat("paper", "new", **none, bundles={})
    Bot.objects.exclude(instance="cellar").update(last_heard_at=timezone.now() + timedelta(minutes=10))
    Bot.objects.filter(instance="cellar").update(last_heard_at=timezone.now() - timedelta(hours=3))


def send_heartbeat(name: str, instance: str, **changes: Any) -> None:
    """Send the heartbeat of a bot that runs the live release, with these changes."""
    now = pointer.get_current()
    assert now is not None
    if not User.objects.filter(username=name).exists():
        factories.token(factories.person(name), "bot")
    # It may have been put ahead of the clock, to stay live; a heartbeat does not undo a later one.
    Bot.objects.filter(name=name, instance=instance).update(last_heard_at=timezone.now())
    said = scenarios.heartbeat_fields(now, instance, **changes)
    running = Running(said["release"], said["line"], said["bundles"])
    rest = {name: value for name, value in said.items() if name not in ("release", "line", "bundles")}
    rest |= {"trusted_keys": tuple(rest["trusted_keys"]), "protocol": rest["protocol"]["version"]}
    receive_heartbeat(Heartbeat(running=running, **rest), actor=Actor(name, is_bot=True))


def create_building_release(datasets: dict[Coin, Dataset]) -> Release:
    """A release whose coins are at different epochs; the last one is still queued."""
    release = Release.objects.create(
        line="v7_fixed",
        interval_seconds=3600,
        policy=policies.policy_in_force(),
        parameters={"batch_size": 128},
        seed=4,
        budget=runs.open_budget(runs_expected=len(datasets)),
        launched_by=LAUNCHER.name,
        deadline_at=timezone.now() + timedelta(hours=3),
    )
    ReleaseStatus.objects.create(release=release)
    for (coin, dataset), done in zip(datasets.items(), (31, 20, 0), strict=False):
        run = runs.launch_run(
            coin=coin,
            dataset=dataset,
            line="v7_fixed",
            parameters=release.parameters,
            seed=release.seed,
            budget=release.budget,
            actor=LAUNCHER,
            is_sent=False,
        )
        ReleaseCoin.objects.create(release=release, coin=coin, dataset=dataset, run=run)
        if done:
            report_epochs(run, done)
    return release


def report_epochs(run: TrainingRun, epochs: int) -> TrainingRun:
    """Report as many epochs of a run as a worker would."""
    held = leases.claim(
        TrainingRun,
        run.pk,
        worker_name="gpu-1@desk",
        device="NVIDIA A10G",
        code_version="0.1.0",
        rate_usd_per_hour=Decimal("1.006"),
        reserved_usd=Decimal("0.50"),
        allowed_seconds=1789.0,
        billed_seconds=4.0 * epochs,
        spent_usd=Decimal("0.001118") * epochs,
    )
    assert held is not None
    for number in range(1, epochs + 1):
        _report(held, number)
    best = held.epoch_rows.filter(is_best=True).last()
    TrainingRun.objects.filter(pk=run.pk).update(
        lease_until=timezone.now() + timedelta(hours=1),
        best_validation_loss=best and best.validation_loss,
        best_validation_accuracy=best and best.validation_accuracy,
    )
    return held


def _report(run: TrainingRun, number: int) -> None:
    loss = 0.62 + 0.5 * math.exp(-number / 7) + 0.006 * math.sin(5 * number)
    accuracy = 0.74 - 0.36 * math.exp(-number / 6)
    Epoch.objects.create(
        run=run,
        number=number,
        attempt=run.attempt,
        train_loss=loss - 0.03 + 0.04 * math.exp(-number / 3),
        validation_loss=loss,
        validation_accuracy=accuracy,
        seconds=4.1,
        rows_per_second=7_480.0,
        is_best=number % 3 == 1,
    )
    RunLine.objects.create(
        run=run,
        attempt=run.attempt,
        text=f"epoch {number}: validation loss {loss:.4f}, accuracy {accuracy:.1%}",
    )


def create_failed_run(dataset: Dataset) -> TrainingRun:
    run = runs.launch_run(
        coin=dataset.coin,
        dataset=dataset,
        line="v7_fixed",
        parameters={"learning_rate": 0.01},
        seed=9,
        budget=runs.open_budget(),
        actor=LAUNCHER,
        is_sent=False,
    )
    held = report_epochs(run, 6)
    annotations.annotate(
        run, tags=["baseline", "high-rate"], notes="Ten times the usual learning rate.", actor=LAUNCHER
    )
    leases.finish(held, JobState.FAILED, failure="the loss became NaN in epoch 7: lower the learning rate")
    return TrainingRun.objects.get(pk=run.pk)


def create_study(dataset: Dataset) -> Study:
    """A study at work: twelve trials complete, some pruned, one failed, two at work."""
    study = studies.launch(
        dataset=dataset,
        line="v7_fixed",
        ranges={
            "learning_rate": {"kind": "log", "low": 1e-5, "high": 1e-2},
            "batch_size": {"kind": "choice", "choices": [64, 128, 256]},
        },
        parameters={"epochs": 8},
        max_trials=20,
        actor=LAUNCHER,
    )
    advance.advance(study.pk)
    random = np.random.default_rng(4)
    while study.trials.count() < 18:
        trial = study.trials.filter(run__state=JobState.QUEUED).order_by("number")[0]
        _report_trial(trial, random)
        advance.advance(study.pk)
    for trial in study.trials.filter(run__state=JobState.QUEUED):
        report_epochs(trial.run, 3)
    return study


def _report_trial(trial: Trial, random: np.random.Generator) -> None:
    """The run as a worker would leave it: better the nearer its learning rate is to 0.001."""
    is_pruned, is_failed = trial.number in (8, 11, 13, 15), trial.number == 5
    held = report_epochs(trial.run, 4 if is_pruned or is_failed else 8)
    distance = abs(math.log10(trial.parameters["learning_rate"]) + 3)
    loss = 0.86 + 0.05 * distance + random.normal(0, 0.006)
    share = 0.69 - 0.04 * distance + random.normal(0, 0.006)
    TrainingRun.objects.filter(pk=held.pk).update(
        best_validation_loss=loss + 0.05 * is_pruned, best_validation_accuracy=share - 0.05 * is_pruned
    )
    rows = np.full(20, 45.0)
    sums = {
        "rows": rows,
        "weights": rows,
        "hits": random.binomial(45, share, 20),
        "losses": 45 * random.normal(loss, 0.08, 20),
    }
    stop_blocks = {"block_bars": 45, **{name: [float(total) for total in sums[name]] for name in sums}}
    Trial.objects.filter(pk=trial.pk).update(
        is_pruned=is_pruned, stop_blocks=None if is_pruned or is_failed else stop_blocks
    )
    if is_pruned:
        leases.finish(
            held, JobState.CANCELLED, failure="pruned after epoch 4: its loss is worse than the median"
        )
    elif is_failed:
        leases.finish(
            held, JobState.FAILED, failure="the loss became NaN in epoch 5: lower the learning rate"
        )
    else:
        leases.finish(held, JobState.SUCCEEDED)


def approve(release: Release) -> None:
    """Approve the awaiting release, so that a release that passed every gate is live."""
    decide.approve(release, actor=APPROVER, reason="every gate passed for every coin", revision=_revision())


def _revision() -> int:
    now = pointer.get_current()
    assert now is not None
    return now.revision
