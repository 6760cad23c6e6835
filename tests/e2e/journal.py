"""Bots of the chaos test: they predict without pause and record for every decision which bundle made it.

    python -m tests.e2e.journal JOURNAL CACHE URL…    (CRPBOT_TOKEN, CRPBOT_PUBLIC_KEY)

Each process is two bots, one on threads and one on asyncio, each with a folder and a journal of its own. A journal has one
JSON array a line; the last may be cut off where the process was killed.
"""

import asyncio
import hashlib
import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from crpbot_runtime import Active, AsyncClient, Client, Decision
from mlcore.data.simulate import simulate

COINS = ("BTC", "ETH", "SOL")
BARS = 2_048
PAUSE_S = 0.05
ASKS_EVERY_S = 1.0
SPREAD_S = 0.5


@dataclass(frozen=True)
class Decided:
    """One decision; `at` is the bot's clock. Revision and bundle are None without a model."""

    at: float
    coin: str
    revision: int | None
    release: int | None
    bundle: str | None
    is_stale: bool


@dataclass(frozen=True)
class Began:
    """A bot's process started, or started again."""

    at: float


@dataclass(frozen=True)
class Hashed:
    """Every file in a bot's folder, hashed at one moment; those whose bytes are not what they are named by."""

    files: int
    wrong: list[str]


class Journal:
    """What one bot did, over all of its lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Writes from here on; a line that a kill cut off stays one of its own."""
        self._out = self.path.open("a", buffering=1)
        self._out.write("\n")
        self._write("began", [time.time()])

    def decided(self, decision: Decision) -> None:
        stale = decision.stale_since is not None
        row = [time.time(), decision.coin, decision.revision, decision.release, decision.bundle, stale]
        self._write("decided", row)

    def hashed(self, folder: Path) -> None:
        files, wrong = hash_all(folder)
        self._write("hashed", [files, wrong])

    def _write(self, what: str, row: list[object]) -> None:
        with self._lock:
            self._out.write(json.dumps([what, *row]) + "\n")

    def read(self) -> Iterator[Began | Decided | Hashed]:
        kinds = {"began": Began, "decided": Decided, "hashed": Hashed}
        for line in self.path.read_text().splitlines():
            with suppress(ValueError):
                what, *row = json.loads(line)
                yield kinds[what](*row)

    def decisions(self) -> list[Decided]:
        return [row for row in self.read() if isinstance(row, Decided)]

    def lives(self) -> list[list[Decided]]:
        """Its decisions by a model, of one process after another."""
        found: list[list[Decided]] = []
        for row in self.read():
            if isinstance(row, Began):
                found.append([])
            elif isinstance(row, Decided) and row.bundle is not None:
                found[-1].append(row)
        return [life for life in found if life]


def hash_all(cache: Path) -> tuple[int, list[str]]:
    """How many files of whole bundles lie in a bot's folder, and those that are not what their bundle's name says."""
    files, wrong = 0, []
    for folder in (cache / "bundles").iterdir():
        with suppress(FileNotFoundError):  # of a release that is no longer needed, deleted meanwhile
            manifest = (folder / "manifest.json").read_bytes()
            expected = {name: entry["sha256"] for name, entry in json.loads(manifest)["files"].items()}
            for name, sha256 in {**expected, "manifest.json": folder.name}.items():
                files += 1
                if hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha256:
                    wrong.append(f"{folder.name}/{name}")
    return files, wrong


def decide_on_threads(
    client: Client, journal: Journal, cache: Path, windows: dict[str, pl.DataFrame]
) -> None:
    watch = {"every_s": ASKS_EVERY_S}
    threading.Thread(
        target=client.watch, args=(lambda _: journal.hashed(cache),), kwargs=watch, daemon=True
    ).start()
    while True:
        for coin, candles in windows.items():
            journal.decided(client.predict(coin, candles))
            time.sleep(PAUSE_S)


async def decide_on_asyncio(
    client: AsyncClient, journal: Journal, cache: Path, windows: dict[str, pl.DataFrame]
) -> None:
    def on_change(active: Active) -> None:
        journal.hashed(cache)

    watching = asyncio.create_task(client.watch(on_change, every_s=ASKS_EVERY_S))
    while not watching.done():
        for coin, candles in windows.items():
            journal.decided(await client.predict(coin, candles))
            await asyncio.sleep(PAUSE_S)
    await watching


def main() -> None:
    journals, caches, *urls = sys.argv[1:]
    windows = {coin: simulate(coin, bars=BARS, drift=1.2, seed=2) for coin in COINS}
    kinds = ("threads", "asyncio")
    names = [f"{Path(journals).name}-{kind}" for kind in kinds]
    records = [Journal(Path(f"{journals}-{kind}")) for kind in kinds]
    folders = [Path(f"{caches}-{kind}") for kind in kinds]
    secrets = (os.environ["CRPBOT_TOKEN"], os.environ["CRPBOT_PUBLIC_KEY"])
    common: dict[str, Any] = {"coins": COINS, "timeout_s": 3.0, "spread_s": SPREAD_S, "max_age_s": math.inf}
    for journal in records:
        journal.begin()
    first = Client(urls[0], *secrets, folders[0], instance=names[0], **common)
    second = AsyncClient(urls[-1], *secrets, folders[1], instance=names[1], **common)
    threading.Thread(
        target=decide_on_threads, args=(first, records[0], folders[0], windows), daemon=True
    ).start()
    asyncio.run(decide_on_asyncio(second, records[1], folders[1], windows))


if __name__ == "__main__":
    main()
