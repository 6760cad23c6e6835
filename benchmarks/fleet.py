"""Many bots in one process, each the client that bots install: `crpbot_runtime.AsyncClient`, on a stream of its own.

    python -m benchmarks.fleet < SETUP

SETUP is one line of JSON: url, public_key, tokens, first, count, seed, folder, window. Every bot begins with a cache folder
of its own that is a copy of `seed`: it was started again, and holds what its service named last. The bots of a process share
the keys (so that an envelope is verified once for all of them) and the loaded predictors, as the client's page says they
may: a thousand sets would not fit into one machine's memory. One bot in a hundred decides by the new set, once all have
it: a decision takes milliseconds of a process that hundreds of bots share here, and none would share with others.

Prints a line for each revision that all have flipped to.
"""

import asyncio
import gc
import json
import math
import os
import shutil
import sys
from functools import partial
from pathlib import Path
from time import monotonic_ns
from typing import Any

import polars as pl
import uvloop

from crpbot_runtime import Active, AsyncClient
from crpbot_runtime.protocol.public_keys import PublicKeys

PREDICTS_ONE_IN = 100


class Fleet:
    """When each bot of this process flipped to which revision."""

    def __init__(self, clients: list[AsyncClient], window: pl.DataFrame) -> None:
        self._clients, self._window = clients, window
        self._revisions: dict[int, int] = {}
        self._flips: dict[int, list[int]] = {}
        self._decisions: set[asyncio.Task[None]] = set()

    async def follow(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(self._clients):
                group.create_task(client.watch(partial(self._flipped, number)))

    def _flipped(self, number: int, active: Active) -> None:
        at, revision = monotonic_ns(), active.revision
        if revision is None or revision == self._revisions.get(number):
            return  # it tells of other changes too
        self._revisions[number] = revision
        moments = self._flips.setdefault(revision, [])
        moments.append(at)
        if len(moments) == len(self._clients):
            print(json.dumps({"what": "flipped", "revision": revision, "at": moments}), flush=True)
            for one in self._clients[::PREDICTS_ONE_IN]:
                decision = asyncio.create_task(self._decide(one, revision))
                self._decisions.add(decision)
                decision.add_done_callback(self._decisions.discard)

    async def _decide(self, client: AsyncClient, revision: int) -> None:
        decision = await client.predict("BTC", self._window)
        if decision.revision is None or decision.revision < revision or not decision.probabilities:
            raise RuntimeError(f"flipped to revision {revision}, decided by {decision}")


def cache_folder(seed: Path, folder: Path) -> Path:
    """A copy of a client's cache folder; its bundles are hard links, since they never change."""
    shutil.copytree(seed / "bundles", folder / "bundles", copy_function=os.link)
    for name in ("pointers", "revisions.json"):
        copy = shutil.copytree if (seed / name).is_dir() else shutil.copyfile
        copy(seed / name, folder / name)
    return folder


async def run(setup: dict[str, Any]) -> None:
    keys, tokens = PublicKeys(setup["public_key"]), setup["tokens"]
    numbers = range(setup["first"], setup["first"] + setup["count"])
    clients = [
        AsyncClient(
            setup["url"],
            tokens[number % len(tokens)],
            keys,
            cache_folder(Path(setup["seed"]), Path(setup["folder"]) / str(number)),
            instance=f"bot-{number}",
            max_age_s=math.inf,
        )
        for number in numbers
    ]
    gc.freeze()
    await Fleet(clients, pl.read_parquet(setup["window"])).follow()


if __name__ == "__main__":
    uvloop.run(run(json.loads(sys.stdin.readline())))
