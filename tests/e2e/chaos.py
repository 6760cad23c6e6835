"""Chaos test: all processes as the demo runs them, bots that predict all the time, and kills at random moments.

Everything runs under supervisor, which restarts what was killed. Decisions are sent over the API. At the end the answers
and the journals of the bots are compared with the database.
"""

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import psutil
from django.conf import settings
from django.db import connections

from accounts.models import User
from crpbot.demo.processes import Processes, Program, list_programs
from deploy.models import Release, ReleaseStatus
from deploy.outcomes import list_release_coins
from deploy.releases import decide
from deploy.rules import Purpose, ReleaseState
from deploy.serving import keys
from mlcore.bundle import writer
from mlcore.fitting import fit
from mlcore.fitting.recipes import RECIPES
from tests import factories, scenarios
from tests.e2e.chaos_faults import Injector, OwnPostgreSQL, Sample, Store, list_faults, sampling
from tests.e2e.journal import Journal
from tests.e2e.killed_workers import simulated_datasets
from tests.loopback import free_port
from tests.processes import REPOSITORY, wait_until
from tests.scenarios import APPROVER
from training import artifact_store
from training.models import Artifact, Bundle, Coin, Dataset
from training.services.datasets import latest_dataset

LAUNCH_PAUSE_S = 1.0
LONGEST_MOVE_S = 120.0
TIMEOUT_S = 60.0
"""No request takes so long, whatever fails."""
KINDS = ("release", "release", "pin", "restore")
"""Of moves, in this order again and again: live to live, to the fallback, and back to what was live."""


@dataclass
class TrainedBuild(scenarios.Build):
    """A release that bots can load: trained for one epoch on stored candles, with made-up measurements."""

    folder: Path = Path()

    def dataset(self, coin: Coin) -> Dataset:
        return latest_dataset(coin)

    def bundle(self, coin: Coin, data: Dataset) -> Bundle:
        return train_bundle(self.folder, coin, data, self.line, self.seed)


def train_bundle(folder: Path, coin: Coin, data: Dataset, line: str, seed: int) -> Bundle:
    """A bundle of this line trained on these candles, registered as a worker registers it."""
    recipe = RECIPES[line]
    if line != "v5":
        recipe = recipe.with_parameters(epochs=1, batch_size=1024)
    made = fit.fit(fit.prepare(artifact_store.read_candles(data), recipe), recipe, seed=seed, device="cpu")
    described: dict[str, Any] = {
        "coin": coin.symbol,
        "dataset_digest": data.digest,
        "simulated": True,
        "code_version": "test",
    }
    written = writer.write_bundle(folder / f"{line}-{seed}-{coin}", made, **described)
    manifest = (written.folder / "manifest.json").read_text()
    bundle = Bundle.objects.create(
        digest=written.digest,
        coin=coin,
        line=line,
        dataset=data,
        interval_seconds=data.interval_seconds,
        manifest=manifest,
        is_simulated=True,
    )
    for path in sorted(written.folder.iterdir()):
        content = path.read_bytes()
        Artifact.objects.create(
            bundle=bundle, name=path.name, sha256=artifact_store.store(content), size=len(content)
        )
    return bundle


class Fleet(Processes):
    """The supervised processes, with a way to kill one of them."""

    def pids(self) -> dict[str, int]:
        """Of those that supervisor says run: for a second at least, so that it brings them back at once."""
        return {info["name"]: info["pid"] for info in self._read_status() if info["statename"] == "RUNNING"}

    def kill(self, name: str, chance: random.Random) -> str | None:
        """SIGKILL it, or one of its children; what was killed, None where it is just being brought back."""
        pid = self.pids().get(name)
        if pid is None:
            return None
        victims = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        victim = chance.choice(victims)
        victim.kill()
        return name if victim.pid == pid else f"{name}, a child"


@dataclass(frozen=True)
class Request:
    """One request for a decision: its status, None where nobody answered, and the seconds until then."""

    status: int | None
    seconds: float
    faults: frozenset[str]


@dataclass
class Move:
    """One decision: what was asked, and what became of it. `revision` where it was answered."""

    number: int
    kind: str
    revision: int | None = None
    lost: int = 0
    """How often nobody answered."""
    refused: int = 0
    """How often it was refused, because the world had changed since it was looked at."""
    requests: list["Request"] = field(default_factory=list)

    @property
    def reason(self) -> str:
        return f"move {self.number}"


def read_own_reason(reason: str) -> str:
    """The reason that was given, without what the service adds about a fallback that it could not check."""
    return reason.split(" — ")[0]


@dataclass
class ApiUsers:
    """The API clients of operator and approver. They send each request to a random web process."""

    ports: list[int]
    tokens: Mapping[str, str]
    bundles: list[dict[str, str]]
    """Digest by coin, of each set that a release may be made of."""
    chance: random.Random
    moves: list[Move] = field(default_factory=list)
    on_asking: Callable[[], None] | None = None
    """Called once, just before the next move is asked for."""
    injector: Injector | None = None

    def make(self, number: int) -> Move:
        """Request one move until it is done."""
        move = Move(number, KINDS[number % len(KINDS)])
        self.moves.append(move)
        deadline = time.monotonic() + LONGEST_MOVE_S
        while not self._is_done(move):
            assert time.monotonic() < deadline, f"{move} could not be made"
            self._ask(move)
        return move

    def launch_for_workers(self, seed: int) -> None:
        """A release that workers train and measure, whatever becomes of it; one that nobody answers is let be."""
        self._send(
            "POST",
            "releases/",
            "operator",
            {"line": "v7_fixed", "epochs": 2, "batch_size": 1024, "seed": seed},
        )

    def ask_for_snapshot(self) -> int | None:
        answer = self._send("GET", "active/signed/", "bot")
        return answer.status_code if answer is not None else None

    @property
    def _active_faults(self) -> frozenset[str]:
        return self.injector.active if self.injector else frozenset()

    def _is_done(self, move: Move) -> bool:
        """As answered; or, where the answer was lost, as the service says."""
        return move.revision is not None or read_own_reason(self._active()["reason"]) == move.reason

    def _ask(self, move: Move) -> None:
        now = self._active()
        if read_own_reason(now["reason"]) == move.reason:
            return
        path = self._path(move, now)
        if path is None:
            return
        body = {"reason": move.reason} | ({} if path == "pointer/pin/" else {"revision": now["revision"]})
        if self.on_asking is not None:
            self.on_asking()
            self.on_asking = None
        faults, began = self._active_faults, time.monotonic()
        answer = self._send("POST", path, "approver", body)
        seconds, status = time.monotonic() - began, answer.status_code if answer is not None else None
        move.requests.append(Request(status, seconds, faults | self._active_faults))
        if answer is None:
            move.lost += 1
        elif answer.is_success:
            move.revision = answer.json()["revision"]
        else:
            move.refused += 1
            self._expect_taken(answer)

    def _path(self, move: Move, now: Mapping[str, Any]) -> str | None:
        if move.kind == "pin":
            return "pointer/pin/"
        if move.kind == "restore":
            found = [*self._releases("rolled_back"), *self._releases("superseded")]
            return f"releases/{self.chance.choice(found)}/restore/" if found else None
        waiting = self._releases("awaiting_approval")
        if not waiting:
            bundles = self.chance.choice(self.bundles)
            self._expect_taken(
                self._send("POST", "releases/", "operator", {"line": "v7_fixed", "bundles": bundles})
            )
            time.sleep(LAUNCH_PAUSE_S)  # it is judged in this time, unless something fails
            return None
        return f"releases/{waiting[0]}/approve/"

    def _releases(self, state: str) -> list[int]:
        answer = self._send("GET", f"releases/?state={state}&purpose=candidate", "operator")
        self._expect_taken(answer)
        return [row["id"] for row in answer.json()["results"]] if answer and answer.is_success else []

    def _expect_taken(self, answer: httpx.Response | None) -> None:
        """What was asked made sense: it was done, or not now, or nobody answered."""
        is_taken = answer is None or answer.is_success or answer.status_code in (409, 429, 503)
        assert is_taken, f"{answer} {answer.text if answer is not None else ''}"

    def _active(self) -> dict[str, Any]:
        def ask() -> dict[str, Any] | None:
            answer = self._send("GET", "active/", "operator")
            return answer.json() if answer is not None and answer.status_code == 200 else None

        found: dict[str, Any] = wait_until(ask, what="a web process", seconds=LONGEST_MOVE_S)
        return found

    def _send(self, method: str, path: str, who: str, body: object = None) -> httpx.Response | None:
        """The answer of the first web process that gives one; None where the one that heard us is gone.

        What no web process even took up is asked of the next; what one took up and did not answer may have been done.
        """
        for port in self.chance.sample(self.ports, len(self.ports)):
            try:
                return httpx.request(
                    method,
                    f"http://127.0.0.1:{port}/api/v1/{path}",
                    json=body,
                    headers={"Authorization": f"Bearer {self.tokens[who]}"},
                    timeout=TIMEOUT_S,
                )
            except httpx.ConnectError:
                continue
            except httpx.TimeoutException as late:
                raise AssertionError(f"{method} {path} was not answered in {TIMEOUT_S:g} s") from late
            except httpx.HTTPError:
                return None
        return None


@dataclass
class Chaos:
    """One run."""

    users: ApiUsers
    fleet: Fleet
    journals: list[Journal]
    caches: list[Path]
    chance: random.Random
    injector: Injector
    kills: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    seconds: float = 0.0

    def run(self, moves: int, targets: Sequence[str], *, kills: int, faults: int, work_every: int) -> None:
        """So many moves. In the asking for some of them a process is killed, each target in its turn; before some, faults
        begin.
        """
        try:
            with sampling(self.injector, self.users.ask_for_snapshot, self.samples):
                self._run(moves, targets, kills=kills, faults=faults, work_every=work_every)
        finally:
            self.injector.end_all()
            connections.close_all()  # the database was restarted

    def _run(self, moves: int, targets: Sequence[str], *, kills: int, faults: int, work_every: int) -> None:
        begun = time.monotonic()
        failing = set(self.chance.sample(range(moves), faults))
        kill_at = dict(zip(sorted(self.chance.sample(range(moves), kills)), cycle(targets), strict=False))
        for number in range(moves):
            if number % work_every == 0:
                self.users.launch_for_workers(seed=1_000 + number)
            if number in failing:
                self.injector.inject()
            with self._killing(kill_at.get(number)):
                self.users.make(number)
            self.fleet.watch()
            time.sleep(self.chance.uniform(0.0, 0.4))
        self.seconds = time.monotonic() - begun

    @contextmanager
    def _killing(self, target: str | None) -> Iterator[None]:
        """Kill it at a random moment from when the move is asked for: about as long as an answer takes, and longer."""
        timer = threading.Timer(self.chance.uniform(0.0, 0.15), self._kill, [target])
        if target is not None:
            self.users.on_asking = timer.start
        yield
        if target is not None:
            timer.join()

    def _kill(self, target: str) -> None:
        hit = self.fleet.kill(target, self.chance)
        self.kills[hit or "none: it was being restarted"] += 1

    def wait_until_all_is_settled(self) -> None:
        """What workers were killed over goes on, and comes to an end."""
        building = ReleaseStatus.objects.filter(state=ReleaseState.BUILDING).exclude(
            release__purpose=Purpose.INHERITED
        )
        wait_until(lambda: not building.exists(), what="every release to settle", seconds=180)

    def wait_until_bots_are_on(self, revision: int) -> None:
        def all_there() -> bool:
            return all((rows := j.decisions()) and rows[-1].revision == revision for j in self.journals)

        wait_until(all_there, what=f"every bot on revision {revision}", seconds=60)


@contextmanager
def running_service(
    folder: Path,
    *,
    sets: int,
    webs: int,
    bots: int,
    seed: int,
    is_small: bool = False,
    store: Store | None = None,
    database: OwnPostgreSQL | None = None,
) -> Iterator[Chaos]:
    """The service in use, `sets` of V7 bundles to release, and two bots in each of so many processes.

    Where it `is_small`, one worker takes both queues. Without `store` and `database` these two do not fail.
    """
    bundles = _releases(folder, sets)
    ports = [free_port() for _ in range(webs)]
    people = {"operator": ("olivia", "operator"), "approver": ("anna", "approver")}
    tokens = {
        who: factories.token(factories.person(name, scope), scope) for who, (name, scope) in people.items()
    }
    tokens["bot"] = factories.token(factories.person("sampler"), "bot")
    chance = random.Random(seed)
    users = ApiUsers(ports, tokens, bundles, random.Random(seed + 1))
    found = [
        *_service(ports, is_small=is_small),
        *(_bots(folder, n, ports, factories.person(f"trader{n}")) for n in range(bots)),
    ]
    names = [f"desk{n}-{kind}" for n in range(bots) for kind in ("threads", "asyncio")]
    journals = [Journal(folder / f"journal-{name}") for name in names]
    caches = [folder / f"cache-{name}" for name in names]
    with Fleet(folder=REPOSITORY, state=folder, socket=folder / "s.sock", say=lambda text: None) as fleet:
        fleet.start(found)
        fleet.wait_until_running(ports[0])
        injector = Injector(list_faults(folder, store, database, fleet.pids), random.Random(seed + 2))
        users.injector = injector
        yield Chaos(users, fleet, journals, caches, chance, injector)


def _service(ports: list[int], *, is_small: bool) -> list[Program]:
    socket = Path(settings.REDIS_URL.removeprefix("unix://"))
    found = list_programs(port=ports[0], redis_socket=socket, cores=1)
    (web,) = [program for program in found if program.name == "web"]
    more = [
        replace(
            web,
            name=f"web{n}",
            command=[str(port) if word == str(ports[0]) else word for word in web.command],
        )
        for n, port in enumerate(ports[1:], start=2)
    ]
    if is_small:
        found = [_of_both_queues(program) for program in found if program.name != "gates"]
    return [*found, *more]


def _of_both_queues(program: Program) -> Program:
    both = ["training,gates" if word == "training" else word for word in program.command]
    return replace(program, command=both)


def _bots(folder: Path, number: int, ports: list[int], person: User) -> Program:
    name = f"desk{number}"
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    secrets = f'CRPBOT_TOKEN="{factories.token(person, "bot")}",CRPBOT_PUBLIC_KEY="{keys.export_public()}"'
    command = [
        sys.executable,
        "-m",
        "tests.e2e.journal",
        str(folder / f"journal-{name}"),
        str(folder / f"cache-{name}"),
    ]
    return Program(
        name,
        [*command, *urls],
        priority=4,
        environment=f'{secrets},OMP_NUM_THREADS="1",POLARS_MAX_THREADS="1"',
    )


def _releases(folder: Path, sets: int) -> list[dict[str, str]]:
    """V5 registered, V7 in use, and the digests by coin of every V7 set that can be released, measured as healthy."""
    scenarios.inherited()
    datasets = simulated_datasets()
    fallback = TrainedBuild(
        line="v5",
        purpose=Purpose.FALLBACK,
        figures=scenarios.for_every_coin(scenarios.inaccurate),
        folder=folder,
    ).settled()
    decide.register_fallback(fallback, actor=APPROVER, reason="the last line that behaved")
    first = TrainedBuild(folder=folder).settled()
    decide.approve(first, actor=APPROVER, reason="to begin with", revision=1)
    found = [_digests(first)]
    for seed in range(2, sets + 1):
        made = {c: train_bundle(folder, data.coin, data, "v7_fixed", seed) for c, data in datasets.items()}
        for coin, bundle in made.items():
            scenarios.add_measurement(bundle, datasets[coin], scenarios.healthy(coin))
        found.append({coin: bundle.digest for coin, bundle in made.items()})
    return found


def _digests(release: Release) -> dict[str, str]:
    return {
        release_coin.coin.symbol: release_coin.bundle.digest
        for release_coin in list_release_coins(release)
        if release_coin.bundle
    }
