"""From the commit of a move to the flip in 1,000 connected bots; the same by polling MLflow's registry for three coins.

    python -m benchmarks.push [--quick]

Everything on this machine: one web process, Redis, SQLite, the mover, the bots (the client that bots install) in two
processes. The clock is the machine's own, which all processes share: it starts when the transaction has committed and stops
when a bot's `on_change` is called, which has verified the envelope and assigned the new set. Acknowledged is what stands in
the database. MLflow's bots take turns as fast as it answers, and know of a move when they have seen the new version of all
three coins; its authentication is off, since with it a thousand bots would take a quarter of an hour.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gate_service import STATE, Service, running, window
from benchmarks.goals import Goal, check_goals
from benchmarks.mlflow_registry import COINS, Registry, registry
from crpbot_runtime import Client

# After the service's settings.
from deploy.models import Acknowledgement, Bot  # isort: skip
from django.db import transaction  # isort: skip

GOAL_MS, ACKNOWLEDGED_WITHIN_S = 250.0, 10.0
FLEETS = 2
TOKENS = 100
PAUSE_SECONDS = 1.0
START_SECONDS = 120.0


class Fleets:
    """The bots' processes, read in lockstep."""

    def __init__(self, processes: "list[subprocess.Popen[str]]") -> None:
        self._processes = processes

    def all_have(self, what: str, revision: int) -> list[int]:
        """When each bot flipped to this revision."""
        return [at for process in self._processes for at in _line(process, what, revision)]


def _line(process: "subprocess.Popen[str]", what: str, revision: int) -> list[int]:
    assert process.stdout is not None
    for line in process.stdout:
        found = json.loads(line)
        if (found["what"], found["revision"]) == (what, revision):
            return list(found["at"])
    raise RuntimeError("the bots' process ended")


@contextmanager
def fleets(module: str, setups: list[dict[str, Any]]) -> Iterator[Fleets]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}"],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in setups
    ]
    try:
        for process, setup in zip(processes, setups, strict=True):
            assert process.stdin is not None
            process.stdin.write(json.dumps(setup) + "\n")
            process.stdin.flush()
        yield Fleets(processes)
    finally:
        for process in processes:
            process.terminate()
            process.communicate()


def pushed(service: Service, *, bots: int, moves: int) -> tuple[list[float], list[float]]:
    """Seconds from commit to flip for every bot and move; and, for every move, to the last acknowledgement."""
    candles = STATE / "window.parquet"
    window().write_parquet(candles)
    url = f"http://127.0.0.1:{service.port}"
    shared = {"url": url, "public_key": service.public_key, "tokens": service.tokens, "window": str(candles)}
    shared |= {"seed": str(_seed(service, url)), "folder": str(STATE / "bots")}
    each = bots // FLEETS
    setups = [shared | {"first": number * each, "count": each} for number in range(FLEETS)]
    flips, acknowledged = list[float](), list[float]()
    with fleets("fleet", setups) as bots_:
        _wait_until(lambda: _ready(service) == bots, START_SECONDS)
        for number in range(1, moves + 1):
            time.sleep(PAUSE_SECONDS)
            committed_at, revision = _moved(service, number)
            flips += [(at - committed_at) / 1e9 for at in bots_.all_have("flipped", revision)]
            _wait_until(partial(_all_acknowledged, revision, bots), START_SECONDS)
            acknowledged.append((time.monotonic_ns() - committed_at) / 1e9)
    return flips, acknowledged


def _seed(service: Service, url: str) -> Path:
    """The cache folder of a bot that has heard of everything."""
    folder = STATE / "seed"
    with Client(url, service.tokens[0], service.public_key, folder) as client:
        active = client.refresh()
        assert active.problem is None, active.problem
    return folder


def _ready(service: Service) -> int:
    """Bots that run what they must and hold the fallback in memory."""
    rows = Bot.objects.filter(revision=_revision(), mismatch="", prefetched_fallback=service.fallback.pk)
    return rows.count()


def _all_acknowledged(revision: int, bots: int) -> bool:
    return _acknowledged(revision) == bots


def _acknowledged(revision: int) -> int:
    return Acknowledgement.objects.filter(move_id=revision).count()


def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the bots did not follow within {seconds:g} s")
        time.sleep(0.1)


def polled(found: Registry, *, bots: int, moves: int) -> list[float]:
    """Seconds from the last alias' answer to each bot's having seen all three."""
    paths = [found.path(coin) for coin in COINS]
    setup = {"port": found.port, "headers": found.headers, "paths": paths, "count": bots, "connections": 8}
    flips = list[float]()
    with fleets("registry_fleet", [setup]) as bots_:
        bots_.all_have("flipped", 1)
        for number in range(moves):
            version = 2 - number % 2
            found.move(version)
            moved_at = time.monotonic_ns()
            # Who asks between the aliases of two coins sees a mixture; who asked after the last may be a moment early.
            flips += [max(0.0, (at - moved_at) / 1e9) for at in bots_.all_have("flipped", version)]
    return flips


def _moved(service: Service, number: int) -> tuple[int, int]:
    """When the move had committed (the first of what happens then), and its revision."""
    committed: list[int] = []
    with transaction.atomic():
        transaction.on_commit(lambda: committed.append(time.monotonic_ns()))
        revision = service.move(number)
    return committed[0], revision


def _revision() -> int:
    from deploy.pointer import pointer

    now = pointer.get_current()
    assert now is not None
    return now.revision


def said(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    at = {share: ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3 for share in (0.5, 0.99)}
    return f"p50 {at[0.5]:,.0f} ms, p99 {at[0.99]:,.0f} ms, maximum {ordered[-1] * 1e3:,.0f} ms"


def main() -> int:
    """Print what both take; 1 when the 99th percentile or the acknowledgements miss their goal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fifty bots: does it run, not how fast")
    is_quick = parser.parse_args().quick
    bots, moves = (50, 3) if is_quick else (1_000, 8)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        service = stack.enter_context(running(bots=min(bots, TOKENS)))
        flips, acknowledged = pushed(service, bots=bots, moves=moves)
        found = stack.enter_context(registry(folder / "mlflow", has_authentication=False))
        seen = polled(found, bots=bots, moves=1)
    print(f"{bots:,} bots, {moves} moves, commit to flip: {said(flips)}; goal p99 {GOAL_MS:g}")
    print(
        f"the last acknowledgement: {max(acknowledged):.1f} s after the commit; goal {ACKNOWLEDGED_WITHIN_S:g}"
    )
    print(f"polling MLflow's registry as fast as it answers, {bots:,} bots: {said(seen)}")
    p99 = sorted(flips)[int(0.99 * len(flips))] * 1e3
    return check_goals(
        Goal("99th percentile from commit to flip", p99, GOAL_MS, "ms", is_maximum=True),
        Goal("last acknowledgement", max(acknowledged), ACKNOWLEDGED_WITHIN_S, "s", is_maximum=True),
    )


if __name__ == "__main__":
    sys.exit(main())
