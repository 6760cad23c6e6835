"""A release with real workers, one of which is killed with SIGKILL at a random moment."""

import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from django.conf import settings
from django.db import close_old_connections

from accounts.roles import Actor, Role
from deploy.models import Release, ReleaseCoin
from deploy.outcomes import list_release_coins
from deploy.reconcile import reconcile_once
from deploy.releases.launch import launch
from deploy.rules import ReleaseState
from mlcore.bundle import writer
from mlcore.fitting import fit
from mlcore.fitting.recipes import RECIPES
from tests.processes import Process, StartWorker, wait_until
from training import artifact_store
from training.models import Dataset
from training.services import coins, datasets

EPOCHS = 8
BARS = 9_500  # 1,000 rows and a few in the gate window
SETTLES_WITHIN_SECONDS = 120
OPERATOR = Actor("olivia", frozenset({Role.OPERATOR}))


@dataclass
class Workers:
    """The two workers of the embedded profile, brought back when killed, as the supervisor does it."""

    start: StartWorker
    alive: dict[str, Process] = field(default_factory=dict)
    started: int = 0

    def ensure(self) -> None:
        for queue, slots in (("training", 2), ("gates", 1)):
            if queue not in self.alive or self.alive[queue].popen.poll() is not None:
                self.started += 1
                self.alive[queue] = self.start(queue, slots=slots, name=f"{queue}{self.started}")

    def kill(self, chance: random.Random) -> str:
        """SIGKILL one process of one worker: its parent, or the child at work."""
        queue = chance.choice(["training", "training", "gates"])
        worker = self.alive[queue]
        victims = [psutil.Process(worker.popen.pid), *worker.children]
        victim = chance.choice(victims)
        victim.kill()
        return f"{queue} {'parent' if victim.pid == worker.popen.pid else 'child'}"


def simulated_datasets() -> dict[str, Dataset]:
    """Small markets with a planted drift, one a coin."""
    coins.ensure_coins()
    return {
        symbol: datasets.simulate_candles(
            coins.find_coin(symbol), bars=BARS, drift=1.2, seed=11, actor=OPERATOR
        ).dataset
        for symbol in ("BTC", "ETH", "SOL")
    }


@dataclass
class Trial:
    """What happened to one release."""

    seed: int
    killed: str
    killed_after_seconds: float
    state: str
    seconds: float
    attempts: int


def run_release_with_kill(workers: Workers, *, seed: int, chance: random.Random) -> Trial:
    """Launch a release, kill a worker once at a random moment, and wait until it has settled."""
    begun = time.monotonic()
    release = launch("v7_fixed", actor=OPERATOR, parameters={"epochs": EPOCHS, "batch_size": 256}, seed=seed)
    kill_after = chance.uniform(0.2, 9.0)
    killed, reconciled_at = "", 0.0

    def settled() -> bool:
        nonlocal killed, reconciled_at
        if time.monotonic() - reconciled_at >= settings.RECONCILE_EVERY_SECONDS:
            reconciled_at = time.monotonic()
            close_old_connections()
            reconcile_once()
        workers.ensure()
        if not killed and time.monotonic() - begun >= kill_after:
            killed = workers.kill(chance)
        return _state(release) != ReleaseState.BUILDING

    try:
        wait_until(settled, what=f"{release} to settle", seconds=SETTLES_WITHIN_SECONDS)
    except AssertionError as stuck:
        raise AssertionError(f"{stuck}; killed {killed}\n{describe_jobs(release, workers)}") from stuck
    if not killed:
        killed = "none: it had settled before"
    attempts = sum(
        release_coin.run.attempt for release_coin in list_release_coins(release) if release_coin.run
    )
    return Trial(seed, killed, kill_after, _state(release), time.monotonic() - begun, attempts)


def describe_jobs(release: Release, workers: Workers) -> str:
    """The state of a release that does not settle, and the last lines its workers logged."""
    jobs = [
        job
        for p in list_release_coins(release)
        for job in (p.run, p.bundle and p.bundle.measurements.first())
        if job
    ]
    lines = [
        f"{job}: {job.state}, attempt {job.attempt} of {job.worker_name}, lease until {job.lease_until},"
        f" sent at {job.enqueued_at}"
        for job in jobs
    ]
    for queue, worker in workers.alive.items():
        lines += [f"--- {queue}: {worker.popen.poll()}, {worker.children}", worker.output[-3000:]]
    return "\n".join(lines)


def _state(release: Release) -> str:
    return Release.objects.select_related("status").get(pk=release.pk).state


def digest_without_kill(release_coin: ReleaseCoin, folder: Path) -> str:
    """The digest of the same recipe, dataset and seed, trained here without interruption."""
    assert release_coin.run is not None
    recipe = RECIPES[release_coin.run.line].with_parameters(**release_coin.run.parameters)
    prepared = fit.prepare(artifact_store.read_candles(release_coin.dataset), recipe)
    trained = fit.fit(prepared, recipe, seed=release_coin.run.seed, device="cpu")
    written = writer.write_bundle(
        folder,
        trained,
        coin=release_coin.coin.symbol,
        dataset_digest=release_coin.dataset.digest,
        simulated=True,
        code_version=release_coin.run.code_version,
    )
    return written.digest
